"""Run directories in a bucket: the real client, and a server of our own."""

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
from sample_runs import by, took_at_once

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
    """An address that no other test uses, on a machine that knows nothing."""
    another_machine()
    yield f"gs://b/{request.node.name}"
    server.before = lambda method, name: None
    server.asked.clear()


def another_machine():
    object_store._local_copy.cache_clear()


def meanwhile(server, method, ending, do):
    """Has something done once, before a request is answered."""

    def before(asked, name):
        if asked == method and name.endswith(ending):
            server.before = lambda method, name: None
            do()

    server.before = before


def contents(server, address):
    """What a run keeps, as `run_processes.contents` says of one on disk."""
    found = {}
    for name, content in server.tree(address.removeprefix("gs://")).items():
        if name.startswith("replicate") and "/level_" in name:
            found[name] = content
        if name.endswith("record.json"):
            found[name] = json.loads(content)
            del found[name]["row"]["seconds"]
        if name == "results.csv":
            rows = list(csv.DictReader(content.decode().splitlines()))
            found[name] = rows
    for row in found["results.csv"]:
        del row["seconds"]
    return found


def test_what_is_written_is_read_listed_and_removed(at, monkeypatch):
    monkeypatch.setattr(bucket_server, "PAGE", 5)
    place = object_store.of(at)
    assert place.is_empty()
    assert place.read("a/1") is None
    for number in range(12):
        place.write(f"a/{number}", b"%d" % number)
    assert place.read("a/7") == b"7"
    assert place.files("a") == {
        str(n): object_store.md5(b"%d" % n) for n in range(12)
    }
    assert place.folders() == ["a"]
    assert (
        object_store.of(at.replace("//", "/")).read("a/7") == b"7"
    )  # `pathlib`'s
    place.remove("a/7")
    place.remove("a/7")
    place.remove_folder("a")
    assert place.is_empty()


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_large_file_goes_up_in_parts(at):
    content = os.urandom(2**20) * 51
    object_store.of(at).write("large", content)
    assert object_store.of(at).read("large") == content


def test_a_lease_is_taken_by_one_until_it_is_released(at):
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


def test_of_many_one_takes_a_lease(at, server):
    asked = threading.Barrier(8)

    def before(method, _):
        if method == "POST":
            asked.wait()  # All have seen that it is free.

    server.before = before

    assert sorted(took_at_once(at)) == [False] * 7 + [True]


def test_no_beat_follows_the_release_of_a_lease(at, server):
    beating, goes_on = threading.Event(), threading.Event()
    with Leases(at, expiry=0.06) as leases:
        assert leases.acquire("dense")

        def before(method, _):
            if method == "POST":
                beating.set()
                goes_on.wait()

        server.before = before
        beating.wait()
        release = threading.Thread(target=leases.release, args=("dense",))
        release.start()
        release.join(0.3)  # It must not get through.
        goes_on.set()
        release.join()
    assert server.tree(at.removeprefix("gs://")) == {}


def test_what_stands_still_is_taken_over_and_what_moves_is_not(at):
    place = object_store.of(at)
    place.create("dense.0", b"elsewhere 1 \n")
    other = Leases(at, expiry=0.05)
    for beat in range(50):
        place.write("dense.0", b"elsewhere 1 \n%d" % beat)
        assert not other.acquire("dense")
    assert other.holder("dense") == "process 1 on elsewhere"
    by(lambda: other.acquire("dense"))
    assert list(place.files()) == ["dense.0", "dense.1"]
    other.release("dense")
    assert place.is_empty()


def test_a_heart_beats_on_after_requests_that_failed(at, server, no_sleep):
    failed = []

    def before(method, name):
        if method == "POST" and len(failed) < 8:
            failed.append(name)
            raise ConnectionError

    place = object_store.of(at)
    with Leases(at, expiry=0.06) as held:
        assert held.acquire("dense")
        first = place.read("dense.0")
        server.before = before
        by(lambda: place.read("dense.0") != first)
        assert len(failed) == 8
        second = place.read("dense.0")
        by(lambda: place.read("dense.0") != second)
    assert place.is_empty()


@pytest.fixture
def no_sleep(monkeypatch):
    """The client tries again at once: else it waits half a minute."""

    async def sleep(_):
        pass

    import gcsfs.retry

    monkeypatch.setattr(gcsfs.retry.asyncio, "sleep", sleep)


def test_a_network_replaced_while_it_is_read_is_read_whole(at, server):
    one = sample_runs.directory(at)
    (ticket, run), *_ = sample_runs.found_tickets()
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
    found = other.load(0, ticket)
    assert found.metrics["test_accuracy"] == 0.5
    assert toy.same(found.trained, better.trained)


def test_what_diverged_is_known_on_another_machine(at):
    def opened():
        another_machine()
        return sample_runs.directory(at)

    sample_runs.diverges_and_comes_back(sample_runs.directory(at), opened)


def folder_of(path, text):
    path.mkdir()
    for name in ("data", "index"):
        (path / name).write_text(f"{text}'s {name}")
    return path


def test_of_two_that_replace_a_folder_at_once_one_is_whole(
    at, server, tmp_path
):
    one, other = (folder_of(tmp_path / w, w) for w in ("one", "other"))
    place = object_store.of(at)
    meanwhile(
        server,
        "POST",
        "/index",
        lambda: object_store.of(at).upload_folder("theta", other, "index"),
    )
    place.upload_folder("theta", one, "index")
    assert place.read("theta/data") == b"one's data"
    assert place.read("theta/index") == b"one's index"


def test_a_folder_that_is_half_replaced_is_not_there(at, server, tmp_path):
    one, other = (folder_of(tmp_path / w, w) for w in ("one", "other"))
    place = object_store.of(at)
    place.upload_folder("theta", one, "index")
    read = tmp_path / "read"
    place.download_folder("theta", read, "index")
    meanwhile(
        server,
        "POST",
        "/index",
        lambda: place.download_folder("theta", read, "index"),
    )
    place.upload_folder("theta", other, "index")
    assert not read.exists()
    place.download_folder("theta", read, "index")
    assert sample_runs.tree(read) == sample_runs.tree(other)


@pytest.mark.parametrize("ending", ["/data", "/index"])
def test_theta_0_is_what_it_was_first(at, server, tmp_path, ending):
    one, other = (folder_of(tmp_path / w, w) for w in ("one", "other"))
    if ending == "/data":
        # The other one is first, though this one looked before it.
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


@pytest.mark.parametrize(("step", "kept"), [(0, "other"), (5, "one")])
def test_the_first_theta_0_and_the_last_theta_k_stay(at, step, kept):
    directories = {}
    for who in ("other", "one"):
        another_machine()
        directories[who] = sample_runs.directory(at)
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
        assert text == kept
    assert not directory.has_checkpoint(1, step)


def test_theta_0_of_who_died_over_it_is_not_waited_for(
    at, tmp_path, monkeypatch
):
    monkeypatch.setattr(object_store, "CREATOR_TIMEOUT", 0.05)
    object_store.of(at).create("theta/data", b"of a dead one")
    folder = folder_of(tmp_path / "one", "one")
    object_store.of(at).create_folder("theta", folder, "index")
    assert object_store.of(at).read("theta/data") == b"one's data"
    assert (folder / "data").read_text() == "one's data"


def test_what_is_under_way_is_put_and_brought(at, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "REST_FACTOR", 0)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    place = object_store.of(at)
    for step in (1, 2, 3):
        (here / f"job_{step}").write_text(str(step))
        (here / f"job_{step - 2}").unlink(missing_ok=True)
        place.upload_new("unfinished", here)
    object_store.of(at).download_new("unfinished", there)
    assert sorted(os.listdir(there)) == ["job_2", "job_3"]
    place.remove_folder("unfinished")
    place.upload_new("unfinished", here)
    assert sorted(place.files("unfinished")) == ["job_2", "job_3"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of this process alone, on disk."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    config = experiment.Config().replace({**SMALL, "controls": ["reinit"]})
    experiment.run_experiment(config, folder, "lenet_mnist", verbose=False)
    return folder


def test_a_run_in_a_bucket_is_the_run_on_disk(at, alone, server, tmp_path):
    config = experiment.Config().replace({**SMALL, "controls": ["reinit"]})
    made = experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    assert made.address == at
    there = server.tree(at.removeprefix("gs://"))
    here = sample_runs.tree(alone)
    assert there.keys() == here.keys()
    assert there["config.json"] == here["config.json"]
    assert contents(server, at) == on_disk(alone)

    another_machine()
    server.asked.clear()
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    assert not [n for m, n in server.asked if m == "POST" and "level" in n]

    # Copied to a disk, it is a run directory; and a report needs no disk.
    for name, content in there.items():
        file = tmp_path / "copied" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    records = RunDirectory.open(tmp_path / "copied").records()
    another_machine()
    opened = RunDirectory.open(at).records()
    assert [r.digests for r in opened] == [r.digests for r in records]
    assert len(opened) == 3


@pytest.fixture
def kept(at):
    """A run of three toy networks in a bucket."""
    sample_runs.fill(sample_runs.directory(at))
    another_machine()
    return at


def test_reports_and_tickets_come_from_an_address(
    kept, server, capsys, tmp_path
):
    assert __main__.main(["report", kept]) == 0
    assert capsys.readouterr().out.endswith(f"{kept}/report.html\n")
    page = object_store.of(kept).read("report.html")
    assert b"<html" in page
    assert object_store.of(kept).files("figures")
    another_machine()
    out = str(tmp_path / "made.ticket")
    words = ["--format", "ticket", "--output", out, "--level"]
    assert __main__.main(["export", kept, *words, "1"]) == 0
    dense = sample_tickets.dense_ticket()
    assert run_directory.Ticket.load(out).masks.keys() == dense.masks.keys()
    assert __main__.main(["export", kept, *words, "7"]) == 2
    assert f"{kept!r} has no ticket of replicate" in capsys.readouterr().err


def test_errors_name_the_address(kept, server):
    directory = sample_runs.directory(kept)
    place = object_store.of(kept)
    place.write("replicate_0/level_1/ticket/trained", b"half")
    name = f"'{kept}/replicate_0/level_1/ticket/trained'"
    with pytest.raises(ValueError, match=f"{name} is no trained file"):
        directory.ticket(0, 1)
    with pytest.raises(ValueError, match=f"{name} is no trained file"):
        directory.records()
    other = {**sample_runs.FINGERPRINT, "rate": 0.5}
    with pytest.raises(ValueError, match=f"'{kept}' holds another conf"):
        sample_runs.directory(kept, other)
    with pytest.raises(ValueError, match="level_1' is not empty and holds no"):
        sample_runs.directory(f"{kept}/replicate_0/level_1")


@pytest.fixture(scope="module")
def process(server, tmp_path_factory):
    made = Process(tmp_path_factory.mktemp("process"), "one")
    made.by(lambda: "ready" in made.said())
    yield made
    made.process.kill()
    made.process.wait()
    made.process.stdin.close()


def test_what_two_processes_share_in_a_sweep_is_trained_once(
    at, process, capsys, monkeypatch
):
    monkeypatch.setattr(leases._BucketStore, "poll_interval", 0.1)
    settings = {**SMALL, "rate": [0.3, 0.5]}
    configs = experiment.expand(experiment.Config(), settings)
    process.start(settings, at)
    experiment.run_sweep(configs, at, "lenet_mnist")
    process.wait()
    here = [
        line.split("  density")[0]
        for line in capsys.readouterr().err.splitlines()
        if line.endswith(" s")
    ]
    trained = [*here, *process.trained()]
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


def test_a_killed_run_goes_on_from_an_empty_disk(
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
    assert frozen.wait(60), process.told()
    process.process.kill()
    process.process.wait()
    is_dead.set()
    real, steps = resume.found, []

    def found(jobs):
        kept = real(jobs)
        steps.extend(each.state.step for each in kept)
        return kept

    monkeypatch.setattr(resume, "found", found)
    server.before = lambda method, name: None
    config = experiment.Config().replace(SMALL)
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    assert steps == [40]
    made = contents(server, at)
    assert len(made.pop("results.csv")) == 2
    assert len(made) == 2 * 3
    whole = on_disk(alone)
    assert {name: whole[name] for name in made} == made
    assert not [n for n in object_store.of(at).files() if "unfinished" in n]


def test_a_search_of_ones_own_goes_on_in_a_bucket(at, server):
    search = sample_searches.prepare(levels=1)
    sample_searches.fit(search, at)
    another_machine()
    again = sample_searches.prepare(levels=1)
    server.asked.clear()
    sample_searches.fit(again, at)
    assert not [n for m, n in server.asked if m == "POST" and "level" in n]
    for one, other in zip(search.tickets, again.tickets, strict=True):
        assert toy.same(one.trained, other.trained)


def test_only_the_chief_of_several_workers_asks_the_bucket(
    at, server, monkeypatch
):
    monkeypatch.setattr(strategies, "is_chief", lambda _: False)
    for module in (executors, sweep):
        monkeypatch.setattr(module, "run_worker", lambda *_: None)
    server.asked.clear()
    configs = experiment.expand(experiment.Config(), {**SMALL, "rate": [0.3]})
    assert experiment.run_sweep(configs, at) == []
    assert server.asked == []


def run(address):
    """The command that is SMALL."""
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


def test_a_network_that_is_gone_ends_in_one_line_and_the_run_goes_on(
    at, alone, server, no_sleep, capsys
):
    def gone(method, name):
        if method == "POST" and "level_1" in name or is_gone:
            is_gone.append(name)
            raise ConnectionError

    is_gone = []
    server.before = gone
    assert run(at) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"tf-lottery: {at!r} does not answer: Server disconnected. What is "
        "kept there stays; the same command goes on from there."
    )
    server.before = lambda method, name: None
    another_machine()
    # This process lives, so its leases would be waited for.
    object_store.of(at).remove_folder(".leases")
    config = experiment.Config().replace(SMALL)
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    made = contents(server, at)
    del made["results.csv"]
    whole = on_disk(alone)
    assert {name: whole[name] for name in made} == made


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("gs://missing/run", "There is no bucket 'missing', of "),
        ("gs://forbidden/r", "No permission for 'gs://forbidden/r': nobody"),
        ("s3://b/run", "A run directory lies in a file system, or in a bucket"),
        ("gs://", "as gs://bucket/folder; got 'gs://'. "),
    ],
)
def test_what_cannot_be_is_said_in_one_line(server, address, told, capsys):
    assert __main__.main(["report", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tf-lottery: ")
    assert told in line


@pytest.mark.parametrize("name", ["missing", "forbidden"])
def test_a_run_does_not_begin_where_it_cannot_be_kept(server, name):
    with pytest.raises(object_store.BucketError, match=f"'gs://{name}/run'"):
        sample_runs.directory(f"gs://{name}/run")
    with pytest.raises(object_store.BucketError, match=f"'gs://{name}/run'"):
        RunDirectory.open(f"gs://{name}/run")


def test_without_the_extra_its_name_is_said(monkeypatch, capsys):
    object_store._store.cache_clear()
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    assert __main__.main(["report", "gs://b/run"]) == 2
    assert capsys.readouterr().err == (
        "tf-lottery: Addresses gs://… need gcsfs: pip install "
        "'tf-lottery[gcs]'.\n"
    )


def test_nothing_of_it_is_imported_before_there_is_an_address():
    code = "import sys, tf_lottery; sys.exit('gcsfs' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
