"""Runs in object stores, with real clients and test servers."""

import csv
import json
import threading

import bucket_server
import object_stores
import pytest
import sample_runs
import sample_searches
import sample_tickets
import toy
from run_processes import TINY, Process, without_time
from run_processes import contents as on_disk

from tf_lottery import __main__, experiment
from tf_lottery.core.storage import object_folder
from tf_lottery.core.storage.folder import StorageError, open_folder
from tf_lottery.experiment import sweep
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import executors, in_progress
from tf_lottery.runs.in_progress import InProgressFolder
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import resume
from tf_lottery.training.distribution import strategies

SMALL = {**TINY, "replicates": 1, "levels": 1, "controls": []}


@pytest.fixture(scope="module")
def server():
    object_folder._store.cache_clear()
    with bucket_server.serving() as server:
        yield server
    object_folder._store.cache_clear()


@pytest.fixture
def at(server, request):
    """An address that no other test uses."""
    yield f"gs://b/{request.node.name}"
    server.before = lambda method, name: None
    server.requests.clear()


def tree(address):
    """Returns all files of a folder: name to content."""
    folder = open_folder(address)
    return {name: folder.read(name) for name in folder.files()}


def contents(address):
    """Returns the files of a run, as `run_processes.contents` on a disk."""
    files = {}
    for name, content in tree(address).items():
        if name.startswith("replicate") and "/level_" in name:
            is_record = name.endswith("record.json")
            files[name] = without_time(content) if is_record else content
        if name == "results.csv":
            files[name] = list(csv.DictReader(content.decode().splitlines()))
    for row in files["results.csv"]:
        del row["seconds"]
    return files


@pytest.fixture
def no_sleep(monkeypatch):
    """The client retries at once; otherwise for half a minute."""

    async def sleep(_):
        pass

    import gcsfs.retry

    monkeypatch.setattr(gcsfs.retry.asyncio, "sleep", sleep)


def test_a_divergence_is_known_on_another_machine(at):
    def reopen():
        return sample_runs.open_run(at)

    sample_runs.check_diverged_network(sample_runs.open_run(at), reopen)


def test_checkpoints_of_a_training_are_uploaded_and_downloaded(at, monkeypatch):
    monkeypatch.setattr(in_progress, "UPLOAD_SHARE", 1e9)
    folder = open_folder(at)
    training = InProgressFolder(folder)
    local = training.local("unfinished")
    local.mkdir(parents=True)
    for step in (1, 2, 3):
        (local / f"job_{step}").write_text(str(step))
        (local / f"job_{step - 2}").unlink(missing_ok=True)
        training.upload("unfinished")
    another = InProgressFolder(folder)
    copy = another.local("unfinished")
    assert sorted(p.name for p in copy.iterdir()) == ["job_2", "job_3"]
    assert (copy / "job_3").read_text() == "3"
    another.remove("unfinished")
    assert not copy.exists()
    assert folder.files() == {}


def test_a_removed_checkpoint_is_not_uploaded_again(at):
    training = InProgressFolder(open_folder(at))
    training.local("unfinished").mkdir(parents=True)
    (training.local("unfinished") / "job_1").write_text("1")
    training.upload("unfinished")
    training.remove("unfinished")
    training.upload("unfinished")
    assert open_folder(at).files() == {}


def test_uploads_take_a_small_share_of_the_time(at):
    training = InProgressFolder(open_folder(at))
    local = training.local("unfinished")
    local.mkdir(parents=True)
    for step in range(5):
        (local / f"job_{step}").write_text(str(step))
        training.upload("unfinished")
    assert list(open_folder(at).files()) == ["unfinished/job_0"]
    training.upload("unfinished", at_once=True)
    assert len(open_folder(at).files()) == 5


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run that this process trains on a disk."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    config = experiment.Config().replace({**SMALL, "controls": ["reinit"]})
    experiment.run_experiment(config, folder, "lenet_mnist", verbose=False)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body")
@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_a_run_in_an_object_store_is_the_run_on_disk(kind, alone, tmp_path):
    object_folder._store.cache_clear()
    config = experiment.Config().replace({**SMALL, "controls": ["reinit"]})

    def run(address):
        experiment.run_experiment(config, address, "lenet_mnist", verbose=False)

    with object_stores.serving(kind) as bucket:
        at = f"{bucket}/run"
        run(at)
        remote, local = tree(at), sample_runs.tree(alone)
        assert remote.keys() == local.keys()
        assert remote["config.json"] == local["config.json"]
        assert contents(at) == on_disk(alone)

        run(at)
        # Nothing is trained or written again.
        assert tree(at) == remote
        opened = RunDirectory.open(at).records()
        assert __main__.main(["report", at]) == 0
        assert b"<html" in open_folder(at).read("report.html")
    object_folder._store.cache_clear()

    # Copied to a disk, it is a run directory.
    for name, content in remote.items():
        file = tmp_path / "copied" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    records = RunDirectory.open(tmp_path / "copied").records()
    assert [r.digests for r in opened] == [r.digests for r in records]
    assert len(opened) == 3


@pytest.fixture
def run_address(at):
    """A run of three toy networks in a bucket."""
    sample_runs.fill(sample_runs.open_run(at))
    return at


def test_reports_and_tickets_are_read_from_an_address(
    run_address, capsys, tmp_path
):
    assert __main__.main(["report", run_address]) == 0
    assert capsys.readouterr().out.endswith(f"{run_address}/report.html\n")
    assert b"<html" in open_folder(run_address).read("report.html")
    assert open_folder(run_address).files("figures")
    out = str(tmp_path / "files.ticket")
    words = ["--format", "ticket", "--output", out, "--level"]
    assert __main__.main(["export", run_address, *words, "1"]) == 0
    dense = sample_tickets.dense_ticket()
    assert Ticket.load(out).masks.keys() == dense.masks.keys()
    assert __main__.main(["export", run_address, *words, "7"]) == 2
    assert (
        f"{run_address!r} has no ticket of replicate" in capsys.readouterr().err
    )


def test_errors_name_the_address(run_address):
    directory = sample_runs.open_run(run_address)
    bucket = open_folder(run_address)
    bucket.write("replicate_0/level_1/ticket/trained", b"half")
    name = f"'{run_address}/replicate_0/level_1/ticket/trained'"
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        directory.ticket(0, 1)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
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
    files = contents(at)
    assert len(files.pop("results.csv")) == 2
    assert len(files) == 2 * 3
    expected = on_disk(alone)
    assert {name: expected[name] for name in files} == files
    assert not [n for n in open_folder(at).files() if "unfinished" in n]


@pytest.mark.slow
def test_a_search_resumes_in_a_bucket(at, server):
    search = sample_searches.prepare(levels=1)
    sample_searches.fit(search, at)
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
    # This process lives, so the lock that it could not remove is its own.
    open_folder(at).remove_folder(".locks")
    config = experiment.Config().replace(SMALL)
    experiment.run_experiment(config, at, "lenet_mnist", verbose=False)
    files = contents(at)
    del files["results.csv"]
    expected = on_disk(alone)
    assert {name: expected[name] for name in files} == files


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("gs://missing/run", "There is no bucket 'missing', of "),
        ("gs://forbidden/r", "No permission for 'gs://forbidden/r': "),
        ("xy://b/run", "Unknown kind of address xy://…"),
        ("gs://", "'gs://' names no folder: "),
    ],
)
def test_a_bad_address_is_one_line(server, address, message, capsys):
    assert __main__.main(["report", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tf-lottery: ")
    assert message in line


@pytest.mark.parametrize("name", ["missing", "forbidden"])
def test_a_run_does_not_start_without_access_to_its_bucket(server, name):
    with pytest.raises(StorageError, match=f"'gs://{name}/run'"):
        sample_runs.open_run(f"gs://{name}/run")
    with pytest.raises(StorageError, match=f"'gs://{name}/run'"):
        RunDirectory.open(f"gs://{name}/run")
