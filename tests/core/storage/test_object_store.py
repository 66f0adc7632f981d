"""Run directories in a bucket, with the real client and a test server."""

import csv
import json
import os
import subprocess
import sys
import threading

import bucket_server
import pytest
import sample_runs
import sample_searches
import sample_tickets
import toy
from run_processes import ROOT, TINY, Process
from run_processes import contents as on_disk
from sample_runs import acquire_in_parallel, wait_until

from tf_lottery import __main__, experiment
from tf_lottery.core.storage import leases, object_store
from tf_lottery.core.storage.leases import Leases
from tf_lottery.experiment import sweep
from tf_lottery.runs import executors, run_directory
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import resume
from tf_lottery.training.distribution import strategies

SMALL = {**TINY, "replicates": 1, "levels": 1, "controls": []}


@pytest.fixture(scope="module")
def server():
    with bucket_server.serving() as server:
        yield server


@pytest.fixture
def at(server, request):
    """An address that no other test uses, on a machine without copies."""
    another_machine()
    yield f"gs://b/{request.node.name}"
    server.before = lambda method, name: None
    server.requests.clear()


def another_machine():
    object_store._local_copy.cache_clear()


def meanwhile(server, method, ending, do):
    """Calls `do` once, before the server answers a request."""

    def before(request_method, name):
        if request_method == method and name.endswith(ending):
            server.before = lambda method, name: None
            do()

    server.before = before


def contents(server, address):
    """Returns the files of a run, as `run_processes.contents` on a disk."""
    files = {}
    for name, content in server.tree(address.removeprefix("gs://")).items():
        if name.startswith("replicate") and "/level_" in name:
            files[name] = content
        if name.endswith("record.json"):
            files[name] = json.loads(content)
            del files[name]["row"]["seconds"]
        if name == "results.csv":
            rows = list(csv.DictReader(content.decode().splitlines()))
            files[name] = rows
    for row in files["results.csv"]:
        del row["seconds"]
    return files


def test_files_are_written_read_listed_and_removed(at, monkeypatch):
    monkeypatch.setattr(bucket_server, "PAGE", 5)
    bucket = object_store.of(at)
    assert bucket.is_empty()
    assert bucket.read("a/1") is None
    for number in range(12):
        bucket.write(f"a/{number}", b"%d" % number)
    assert bucket.read("a/7") == b"7"
    assert bucket.files("a") == {
        str(n): object_store.md5(b"%d" % n) for n in range(12)
    }
    assert bucket.folders() == ["a"]
    assert (
        object_store.of(at.replace("//", "/")).read("a/7") == b"7"
    )  # `pathlib`'s
    bucket.remove("a/7")
    bucket.remove("a/7")
    bucket.remove_folder("a")
    assert bucket.is_empty()


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_large_file_is_uploaded_in_parts(at):
    content = os.urandom(2**20) * 51
    object_store.of(at).write("large", content)
    assert object_store.of(at).read("large") == content


def test_a_lease_is_held_by_one_process_until_it_is_released(at):
    one, other = Leases(at), Leases(at)
    assert one.is_free("dense")
    assert one.acquire("dense")
    assert not one.acquire("dense")
    assert not other.acquire("dense")
    assert not other.is_free("dense")
    assert other.holder("dense") == one.holder("dense")
    assert f"process {os.getpid()} on " in one.holder("dense")
    assert other.acquire("dense.2")
    one.release("dense")
    assert other.acquire("dense")


def test_only_one_of_many_processes_acquires_a_lease(at, server):
    barrier = threading.Barrier(8)

    def before(method, _):
        if method == "POST":
            barrier.wait()  # All have seen that the lease is free.

    server.before = before

    assert sorted(acquire_in_parallel(at)) == [False] * 7 + [True]


def test_no_heartbeat_follows_the_release_of_a_lease(at, server):
    beating, resume_beat = threading.Event(), threading.Event()
    with Leases(at, expiry=0.06) as leases:
        assert leases.acquire("dense")

        def before(method, _):
            if method == "POST":
                beating.set()
                resume_beat.wait()

        server.before = before
        beating.wait()
        release = threading.Thread(target=leases.release, args=("dense",))
        release.start()
        release.join(0.3)  # It must wait for the heartbeat.
        resume_beat.set()
        release.join()
    assert server.tree(at.removeprefix("gs://")) == {}


def test_a_lease_is_taken_over_without_heartbeats_only(at):
    bucket = object_store.of(at)
    bucket.create("dense.0", b"elsewhere 1 \n")
    other = Leases(at, expiry=0.05)
    for beat in range(50):
        bucket.write("dense.0", b"elsewhere 1 \n%d" % beat)
        assert not other.acquire("dense")
    assert other.holder("dense") == "process 1 on elsewhere"
    wait_until(lambda: other.acquire("dense"))
    assert list(bucket.files()) == ["dense.0", "dense.1"]
    other.release("dense")
    assert bucket.is_empty()


def test_heartbeats_go_on_after_failed_requests(at, server, no_sleep):
    failed = []

    def before(method, name):
        if method == "POST" and len(failed) < 8:
            failed.append(name)
            raise ConnectionError

    bucket = object_store.of(at)
    with Leases(at, expiry=0.06) as held:
        assert held.acquire("dense")
        first = bucket.read("dense.0")
        server.before = before
        wait_until(lambda: bucket.read("dense.0") != first)
        assert len(failed) == 8
        second = bucket.read("dense.0")
        wait_until(lambda: bucket.read("dense.0") != second)
    assert bucket.is_empty()


@pytest.fixture
def no_sleep(monkeypatch):
    """The client retries at once; otherwise for half a minute."""

    async def sleep(_):
        pass

    import gcsfs.retry

    monkeypatch.setattr(gcsfs.retry.asyncio, "sleep", sleep)


def test_a_network_replaced_while_it_is_read_is_consistent(at, server):
    one = sample_runs.open_run(at)
    (ticket, run), *_ = sample_runs.trained_tickets()
    one.save(0, ticket, run)
    better = type(run)(
        {path: 2 * value for path, value in run.trained.items()},
        metrics={**run.metrics, "test_accuracy": 0.5},
        curve=run.curve,
        per_example=run.per_example,
    )
    another_machine()
    other = RunDirectory.open(at)
    meanwhile(server, "GET", "/trained", lambda: one.save(0, ticket, better))
    loaded = other.load(0, ticket)
    assert loaded.metrics["test_accuracy"] == 0.5
    assert toy.same(loaded.trained, better.trained)


def test_a_divergence_is_known_on_another_machine(at):
    def reopen():
        another_machine()
        return sample_runs.open_run(at)

    sample_runs.check_diverged_network(sample_runs.open_run(at), reopen)


def folder_of(path, text):
    path.mkdir()
    for name in ("data", "index"):
        (path / name).write_text(f"{text}'s {name}")
    return path


def test_a_folder_that_two_processes_replace_is_consistent(
    at, server, tmp_path
):
    one, other = (folder_of(tmp_path / w, w) for w in ("one", "other"))
    bucket = object_store.of(at)
    meanwhile(
        server,
        "POST",
        "/index",
        lambda: object_store.of(at).upload_folder("theta", other, "index"),
    )
    bucket.upload_folder("theta", one, "index")
    assert bucket.read("theta/data") == b"one's data"
    assert bucket.read("theta/index") == b"one's index"


def test_a_half_replaced_folder_does_not_exist(at, server, tmp_path):
    one, other = (folder_of(tmp_path / w, w) for w in ("one", "other"))
    bucket = object_store.of(at)
    bucket.upload_folder("theta", one, "index")
    read = tmp_path / "read"
    bucket.download_folder("theta", read, "index")
    meanwhile(
        server,
        "POST",
        "/index",
        lambda: bucket.download_folder("theta", read, "index"),
    )
    bucket.upload_folder("theta", other, "index")
    assert not read.exists()
    bucket.download_folder("theta", read, "index")
    assert sample_runs.tree(read) == sample_runs.tree(other)


@pytest.mark.parametrize("ending", ["/data", "/index"])
def test_the_first_theta_0_stays(at, server, tmp_path, ending):
    one, other = (folder_of(tmp_path / w, w) for w in ("one", "other"))
    if ending == "/data":
        # This process looks first, and the other one writes first.
        meanwhile(
            server,
            "POST",
            ending,
            lambda: object_store.of(at).create_folder("theta", other, "index"),
        )
        object_store.of(at).create_folder("theta", one, "index")
        first = "other"
    else:
        object_store.of(at).create_folder("theta", one, "index")
        object_store.of(at).create_folder("theta", other, "index")
        first = "one"
    for folder in (one, other):
        assert (folder / "data").read_text() == f"{first}'s data"
        assert (folder / "index").read_text() == f"{first}'s index"


@pytest.mark.parametrize(("step", "expected"), [(0, "other"), (5, "one")])
def test_the_first_theta_0_and_the_last_theta_k_stay(at, step, expected):
    directories = {}
    for who in ("other", "one"):
        another_machine()
        directories[who] = sample_runs.open_run(at)
    for who, directory in directories.items():

        def write(prefix, who=who):
            for ending in ("data", "index"):
                prefix.with_suffix(f".{ending}").write_text(who)

        directory.save_checkpoint(0, step, write)
    for directory in directories.values():
        assert directory.has_checkpoint(0, step)
        text = directory.load_checkpoint(
            0, step, lambda prefix: prefix.with_suffix(".data").read_text()
        )
        assert text == expected
    assert not directory.has_checkpoint(1, step)


def test_theta_0_of_a_dead_process_is_taken_over(at, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "CREATOR_TIMEOUT", 0.05)
    object_store.of(at).create("theta/data", b"of a dead process")
    folder = folder_of(tmp_path / "one", "one")
    object_store.of(at).create_folder("theta", folder, "index")
    assert object_store.of(at).read("theta/data") == b"one's data"
    assert (folder / "data").read_text() == "one's data"


def test_checkpoints_of_a_training_are_uploaded_and_downloaded(
    at, tmp_path, monkeypatch
):
    monkeypatch.setattr(object_store, "REST_FACTOR", 0)
    local, copy = tmp_path / "local", tmp_path / "copy"
    local.mkdir()
    bucket = object_store.of(at)
    for step in (1, 2, 3):
        (local / f"job_{step}").write_text(str(step))
        (local / f"job_{step - 2}").unlink(missing_ok=True)
        bucket.upload_new("unfinished", local)
    object_store.of(at).download_new("unfinished", copy)
    assert sorted(os.listdir(copy)) == ["job_2", "job_3"]
    bucket.remove_folder("unfinished")
    bucket.upload_new("unfinished", local)
    assert sorted(bucket.files("unfinished")) == ["job_2", "job_3"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run that this process trains alone."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    config = experiment.Config().replace({**SMALL, "controls": ["reinit"]})
    experiment.run_experiment(config, folder, "lenet_mnist", verbose=False)
    return folder


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_on_disk(at, alone, server, tmp_path):
    config = experiment.Config().replace({**SMALL, "controls": ["reinit"]})
    run = experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    assert run.address == at
    remote = server.tree(at.removeprefix("gs://"))
    local = sample_runs.tree(alone)
    assert remote.keys() == local.keys()
    assert remote["config.json"] == local["config.json"]
    assert contents(server, at) == on_disk(alone)

    another_machine()
    server.requests.clear()
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    assert not [n for m, n in server.requests if m == "POST" and "level" in n]

    # Copied to a disk, it is a run directory.
    for name, content in remote.items():
        file = tmp_path / "copied" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    records = RunDirectory.open(tmp_path / "copied").records()
    another_machine()
    opened = RunDirectory.open(at).records()
    assert [r.digests for r in opened] == [r.digests for r in records]
    assert len(opened) == 3


@pytest.fixture
def run_address(at):
    """A run of three toy networks in a bucket."""
    sample_runs.fill(sample_runs.open_run(at))
    another_machine()
    return at


def test_reports_and_tickets_are_read_from_an_address(
    run_address, server, capsys, tmp_path
):
    assert __main__.main(["report", run_address]) == 0
    assert capsys.readouterr().out.endswith(f"{run_address}/report.html\n")
    page = object_store.of(run_address).read("report.html")
    assert b"<html" in page
    assert object_store.of(run_address).files("figures")
    another_machine()
    out = str(tmp_path / "files.ticket")
    words = ["--format", "ticket", "--output", out, "--level"]
    assert __main__.main(["export", run_address, *words, "1"]) == 0
    dense = sample_tickets.dense_ticket()
    assert run_directory.Ticket.load(out).masks.keys() == dense.masks.keys()
    assert __main__.main(["export", run_address, *words, "7"]) == 2
    assert (
        f"{run_address!r} has no ticket of replicate" in capsys.readouterr().err
    )


def test_errors_name_the_address(run_address, server):
    directory = sample_runs.open_run(run_address)
    bucket = object_store.of(run_address)
    bucket.write("replicate_0/level_1/ticket/trained", b"half")
    name = f"'{run_address}/replicate_0/level_1/ticket/trained'"
    with pytest.raises(ValueError, match=f"{name} is no trained file"):
        directory.ticket(0, 1)
    with pytest.raises(ValueError, match=f"{name} is no trained file"):
        directory.records()
    other = {**sample_runs.FINGERPRINT, "rate": 0.5}
    with pytest.raises(ValueError, match=f"'{run_address}' holds another conf"):
        sample_runs.open_run(run_address, other)
    with pytest.raises(ValueError, match="level_1' is not empty and holds no"):
        sample_runs.open_run(f"{run_address}/replicate_0/level_1")


@pytest.fixture(scope="module")
def process(server, tmp_path_factory):
    process = Process(tmp_path_factory.mktemp("process"), "one")
    process.wait_until(lambda: "ready" in process.output())
    yield process
    process.kill()


@pytest.mark.slow
def test_two_processes_train_a_shared_network_of_a_sweep_once(
    at, process, capsys, monkeypatch
):
    monkeypatch.setattr(leases._BucketStore, "poll_interval", 0.1)
    settings = {**SMALL, "rate": [0.3, 0.5]}
    configs = experiment.expand(experiment.Config(), settings)
    process.start(settings, at)
    experiment.run_sweep(configs, at, "lenet_mnist")
    process.wait()
    local = [
        line.split("  density")[0]
        for line in capsys.readouterr().err.splitlines()
        if line.endswith(" s")
    ]
    trained = [*local, *process.trained()]
    assert [name.split()[1] for name in trained].count("0") == 1
    assert len(trained) == 3
    another_machine()
    runs = experiment.members(at)
    assert list(runs) == ["rate=0.3", "rate=0.5"]
    for run in runs.values():
        assert [record.level for record in run.records()] == [0, 1]
    another = experiment.expand(experiment.Config(), {"seed": [1, 2]})
    with pytest.raises(ValueError, match=f"'{at}' holds a sweep of rate"):
        experiment.run_sweep(another, at)
    with pytest.raises(ValueError, match="holds a single run, and this is a"):
        experiment.run_sweep(another, f"{at}/rate=0.3")


@pytest.mark.slow
def test_a_killed_run_resumes_on_an_empty_disk(
    at, alone, server, process, monkeypatch
):
    frozen, is_dead = threading.Event(), threading.Event()

    def before(method, name):
        if method == "POST" and name.endswith("_60"):
            frozen.set()
            is_dead.wait()
            raise ConnectionError

    server.before = before
    process.start(SMALL, at)
    assert frozen.wait(60), process.errors()
    process.process.kill()
    process.process.wait()
    is_dead.set()
    real, steps = resume.load_latest, []

    def load_latest(jobs):
        checkpoints = real(jobs)
        steps.extend(each.state.step for each in checkpoints)
        return checkpoints

    monkeypatch.setattr(resume, "load_latest", load_latest)
    server.before = lambda method, name: None
    config = experiment.Config().replace(SMALL)
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    assert steps == [40]
    files = contents(server, at)
    assert len(files.pop("results.csv")) == 2
    assert len(files) == 2 * 3
    expected = on_disk(alone)
    assert {name: expected[name] for name in files} == files
    assert not [n for n in object_store.of(at).files() if "unfinished" in n]


@pytest.mark.slow
def test_a_search_resumes_in_a_bucket(at, server):
    search = sample_searches.prepare(levels=1)
    sample_searches.fit(search, at)
    another_machine()
    again = sample_searches.prepare(levels=1)
    server.requests.clear()
    sample_searches.fit(again, at)
    assert not [n for m, n in server.requests if m == "POST" and "level" in n]
    for one, other in zip(search.tickets, again.tickets, strict=True):
        assert toy.same(one.trained, other.trained)


def test_only_the_chief_sends_requests_to_the_bucket(at, server, monkeypatch):
    monkeypatch.setattr(strategies, "is_chief", lambda _: False)
    for module in (executors, sweep):
        monkeypatch.setattr(module, "run_worker", lambda *_: None)
    server.requests.clear()
    configs = experiment.expand(experiment.Config(), {**SMALL, "rate": [0.3]})
    assert experiment.run_sweep(configs, at) == []
    assert server.requests == []


def run(address):
    """Runs the command line with the settings SMALL."""
    settings = [
        word
        for name, value in SMALL.items()
        if name in ("model_options", "evaluate_every", "rate")
        for word in ("--set", f"{name}={json.dumps(value)}")
    ]
    return __main__.main(
        ["run", "lenet_mnist", "--run_dir", address, "--steps", "100"]
        + ["--replicates", "1", "--levels", "1", "--controls", ""]
        + ["--set", "rates={}", *settings]
    )


@pytest.mark.slow
def test_a_lost_connection_is_one_line_and_the_run_resumes(
    at, alone, server, no_sleep, capsys
):
    def fail(method, name):
        if method == "POST" and "level_1" in name or failed:
            failed.append(name)
            raise ConnectionError

    failed = []
    server.before = fail
    assert run(at) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"tf-lottery: {at!r} does not answer: Server disconnected. What is "
        "kept there stays; the same command goes on from there."
    )
    server.before = lambda method, name: None
    another_machine()
    # This process lives, so the next run would wait for its leases.
    object_store.of(at).remove_folder(".leases")
    config = experiment.Config().replace(SMALL)
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    files = contents(server, at)
    del files["results.csv"]
    expected = on_disk(alone)
    assert {name: expected[name] for name in files} == files


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("gs://missing/run", "There is no bucket 'missing', of "),
        ("gs://forbidden/r", "No permission for 'gs://forbidden/r': nobody"),
        ("s3://b/run", "A run directory lies in a file system, or in a bucket"),
        ("gs://", "as gs://bucket/folder; got 'gs://'. "),
    ],
)
def test_a_bad_address_is_one_line(server, address, message, capsys):
    assert __main__.main(["report", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tf-lottery: ")
    assert message in line


@pytest.mark.parametrize("name", ["missing", "forbidden"])
def test_a_run_does_not_start_without_access_to_its_bucket(server, name):
    with pytest.raises(object_store.BucketError, match=f"'gs://{name}/run'"):
        sample_runs.open_run(f"gs://{name}/run")
    with pytest.raises(object_store.BucketError, match=f"'gs://{name}/run'"):
        RunDirectory.open(f"gs://{name}/run")


def test_a_missing_package_is_named(monkeypatch, capsys):
    object_store._store.cache_clear()
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    assert __main__.main(["report", "gs://b/run"]) == 2
    assert capsys.readouterr().err == (
        "tf-lottery: Addresses gs://… need gcsfs: pip install "
        "'tf-lottery[gcs]'.\n"
    )


def test_the_client_is_not_imported_without_an_address():
    code = "import sys, tf_lottery; sys.exit('gcsfs' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
