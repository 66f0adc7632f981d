"""The commands; in a process only where the process is under test."""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from tfds_copies import prepare_small_copy

from tf_lottery import TicketSearch, __main__
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs.run_directory import RunDirectory

ROOT = pathlib.Path(__file__).parents[2]
TINY = ("--replicates", "1", "--levels", "1", "--steps", "40")
TINY += ("--set", "evaluate_every=20")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command returned and printed."""

    returncode: int
    stdout: str
    stderr: str


def tf_lottery(*arguments):
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = __main__.main([str(word) for word in arguments])
        except SystemExit as end:
            status = end.code
    return Result(status, out.getvalue(), err.getvalue())


def process(*arguments, **environment):
    """Runs a command in a process."""
    return subprocess.run(
        [sys.executable, "-m", "tf_lottery", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    # A process, so that what TensorFlow itself prints would be seen.
    result = process("run", "lenet_mnist", "--run_dir", path, *TINY)
    assert result.returncode == 0, result.stderr
    return path, result


@pytest.mark.slow
def test_a_run_ends_with_a_table_and_what_it_shows(run):
    path, result = run
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["level", "density", "catches"]
    assert lines[1].split()[:3] == ["0", "100.00", "%"]
    assert lines[2].split()[:3] == ["1", "60.08", "%"]
    assert lines[3].startswith("Means over n = 1 replicate;")
    assert lines[5].startswith("No verdict on 1 replicate: ")
    assert lines[6].startswith("Level 1 (60.1 % of the weights) as measured: ")
    assert lines[-1] == str(path / "report.html")


def assert_only_progress(text):
    # On a slow machine an estimate, "At 1 steps a second ...", comes first.
    lines = [line for line in text.splitlines() if line[:3] != "At "]
    assert [line[:6] for line in lines] == ["level "] * 3


@pytest.mark.slow
def test_nothing_but_progress_is_said_while_it_runs(run):
    _, result = run
    assert_only_progress(result.stderr)


def test_a_run_leaves_results_tickets_report_and_figures(run):
    path, _ = run
    found = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert {
        "config.json",
        "results.csv",
        "report.html",
        "figures/accuracy.png",
        "figures/early_stop_step.png",
        "figures/early_stop_step.svg",
        "figures/initial_weights.png",
        "replicate_0/theta_0/checkpoint.index",
        "replicate_0/level_0/ticket/ticket",
        "replicate_0/level_1/ticket/ticket",
        "replicate_0/level_1/reinit/record.json",
    } <= found
    settings = json.loads((path / "config.json").read_text())["metadata"]
    assert settings["settings"]["levels"] == 1


@pytest.mark.slow
def test_explain_says_how_and_trains_nothing(tmp_path):
    path = tmp_path / "run"
    result = tf_lottery(
        "run", "lenet_mnist", "--run_dir", path, "--explain", *TINY
    )
    assert result.returncode == 0, result.stderr
    said = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert said["networks"] == "3 of 40 steps each"
    assert said["processes"] == "1"
    assert said["executor"] == "in_process"
    assert said["dense"].startswith("dense: ")
    assert said["ticket"].startswith(("sparse_cpu", "dense: a GPU"))
    assert "vectorised" in said["stacks"]
    assert not path.exists()


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(run):
    path, first = run
    before = (path / "results.csv").read_bytes()
    again = tf_lottery("run", "lenet_mnist", "--run_dir", path, *TINY)
    assert again.returncode == 0
    assert again.stderr.count("kept from before") == 3
    assert again.stdout == first.stdout
    assert (path / "results.csv").read_bytes() == before


@pytest.mark.slow
def test_report_draws_again(run):
    path, first = run
    (path / "report.html").unlink()
    result = tf_lottery("report", path)
    assert result.stdout == first.stdout
    assert (path / "report.html").exists()


@pytest.mark.slow
def test_export_writes_every_format_asked_for_and_one_table(run, tmp_path):
    path, _ = run
    result = tf_lottery(
        *("export", path, "--level", 1, "--output", tmp_path / "out"),
        *("--format", "sparse_saved_model,litert", "--shrink"),
        *("--dtype", "float16"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    files = ["litert.tflite", "sparse_saved_model"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files
    lines = result.stdout.splitlines()
    assert lines[0] == "266,610 weights shrunk to 266,610."
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows] == [
        "| file",
        "| dense original, saved_model",
        "| dense original, litert",
        "| sparse_saved_model, float16",
        "| litert, float16",
    ]
    records = path / "replicate_0" / "level_0" / "ticket" / "record.json"
    dense = json.loads(records.read_text())["row"]["test_accuracy"]
    assert rows[1][1] == f"{100 * dense:.2f} %"
    assert lines[-1].startswith("litert, float16, by dense original, litert: ")
    assert "units that are dead are gone; zeros are multiplied" in lines[-1]


def test_export_writes_tickets_with_their_values_or_the_seed(run, tmp_path):
    path, _ = run
    out = tmp_path / "out"
    result = tf_lottery(
        *("export", path, "--level", 1, "--output", out),
        *("--format", "ticket,seed_ticket"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    files = [out / "seed_ticket.ticket", out / "ticket.ticket"]
    assert result.stdout.split() == [str(file) for file in files]
    seed, whole = (Ticket.load(file) for file in files)
    kept = RunDirectory.open(path).ticket(0, 1)
    assert seed.start.digest == whole.start.digest == kept.start.digest
    assert seed.masks == whole.masks == kept.masks
    sizes = [file.stat().st_size for file in files]
    assert 3 * sizes[0] < sizes[1]


def test_what_a_converter_cannot_do_is_one_line_and_status_2(tmp_path):
    steps = keras.Input((None, 2))
    model = keras.Model(steps, keras.layers.GRU(3)(steps))
    search = TicketSearch(model, levels=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    search.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    x, y = np.ones((20, 4, 2), "float32"), np.arange(20) % 3
    held_out = {"validation_data": (x, y), "run_dir": tmp_path / "run"}
    search.fit(x, y, length="2it", batch_size=10, verbose=False, **held_out)
    result = tf_lottery(
        *("export", tmp_path / "run", "--level", 1, "--format", "litert"),
        *("--output", tmp_path / "x.tflite"),
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "fixed number of time steps" in result.stderr
    assert not (tmp_path / "x.tflite").exists()


def test_list_shows_every_table():
    out = tf_lottery("list").stdout
    for word in ("lenet_mnist", "lenet_300_100", "mnist", "magnitude"):
        assert word in out
    for word in ("fashion_mnist", "cifar10", "cifar100", "TFDS"):
        assert word in out
    for word in ("layerwise", "global", "geometric", "one_shot", "reinit"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required"),
        (("rnu",), "Unknown command 'rnu'. Did you mean 'run'?"),
        (
            ("rnu", "lenet_mnist", "--run_dir", "{}"),
            "Unknown command 'rnu'. Did you mean 'run'?",
        ),
        (("--hepl",), "unknown flag '--hepl'. Did you mean '--help'? Try"),
        (("list", "all"), "unrecognized arguments: all"),
        (("list", "--all"), "tf-lottery list: unknown flag '--all'. Try"),
        (
            ("run", "lenet_mnist", "--run-dir={}"),
            "Did you mean '--run_dir'? Try: tf-lottery run --help",
        ),
        (("list", "--", "--all"), "unrecognized arguments: -- --all"),
        (("completion", "zhs"), "Unknown shell 'zhs'. Did you mean 'zsh'?"),
        (("run", "lenet_mnist"), "required: --run_dir"),
        (
            ("run", "lenet_mnis", "--run_dir", "{}"),
            "Did you mean 'lenet_mnist'",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--scale", "tiny"),
            "Unknown scale 'tiny'. Known: quick, paper",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--levels", "-1"),
            "`levels` must be a whole number of 0 or more; got -1",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--steps", "few"),
            "argument --steps: invalid int value: 'few'",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--controls", "reint"),
            "Did you mean 'reinit'",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--strategy", "mirored"),
            "Did you mean 'mirrored'",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--strategy", "mirrored")
            + ("--workers", "2"),
            "2 processes cannot share one strategy",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--set", "rate"),
            "--set takes KEY=VALUE",
        ),
        (
            ("run", "lenet_mnist", "--run_dir", "{}", "--set", "criterion=x"),
            "Unknown criterion 'x'",
        ),
        (("report", "{}"), "holds no run"),
        (
            ("export", "{}", "--level", "1", "--output", "{}/o"),
            "holds no run",
        ),
        (
            ("export", "{}", "--level", "1", "--format", "x", "--output", "o"),
            "Unknown format 'x'. Known: saved_model, sparse_saved_model, "
            "keras, litert, sparse_litert, onnx, ticket, seed_ticket.",
        ),
        (
            (
                "export",
                "{}",
                "--level",
                "1",
                "--dtype",
                "int8",
                "--output",
                "o",
            ),
            "Format 'saved_model' stores float32; got 'int8'",
        ),
        (
            (
                *("export", "{}", "--level", "1", "--shrink"),
                *("--format", "seed_ticket", "--output", "o"),
            ),
            "keep a ticket exactly: leave out --shrink and --dtype",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path):
    result = tf_lottery(*(str(a).format(tmp_path / "d") for a in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not list(tmp_path.rglob("trained"))


FASHION = ("--set", "dataset=fashion_mnist", "--set", "batch_size=10")


@pytest.mark.slow
def test_data_are_read_from_the_folder_that_is_named(tmp_path):
    prepare_small_copy("fashion_mnist", tmp_path / "data")
    result = tf_lottery(
        *("run", "lenet_mnist", "--run_dir", tmp_path / "run", *TINY),
        *("--data_dir", tmp_path / "data", *FASHION),
    )
    assert result.returncode == 0, result.stderr
    assert_only_progress(result.stderr)
    assert result.stdout.startswith("level ")


@pytest.mark.slow
def test_offline_missing_data_are_one_line_and_status_2(tmp_path):
    nowhere = "http://127.0.0.1:9"
    result = process(
        *("run", "lenet_mnist", "--run_dir", tmp_path / "run", *TINY),
        *("--data_dir", tmp_path / "data", *FASHION),
        http_proxy=nowhere,
        HTTP_PROXY=nowhere,
        no_proxy="",
        NO_PROXY="",
    )
    assert result.returncode == 2
    assert "'fashion_mnist' is not prepared in" in result.stderr
    assert str(tmp_path / "data" / "fashion_mnist") in result.stderr
    assert "import tensorflow_datasets as tfds; tfds.load(" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_another_configuration_is_refused_and_harms_nothing(run):
    path, _ = run
    before = (path / "results.csv").read_bytes()
    result = tf_lottery("run", "lenet_mnist", "--run_dir", path, "--seed", "9")
    assert result.returncode == 2
    assert "holds another configuration" in result.stderr
    assert (path / "results.csv").read_bytes() == before


def test_a_missing_level_is_named(run, tmp_path):
    path, _ = run
    result = tf_lottery(
        "export", path, "--level", 7, "--output", tmp_path / "o"
    )
    assert result.returncode == 2
    assert "no ticket of replicate 0, level 7: results.csv" in result.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_a_directory_that_the_same_command_continues(tmp_path):
    path = tmp_path / "run"
    command = ("run", "lenet_mnist", "--run_dir", path, "--replicates", "1")
    running = subprocess.Popen(
        [sys.executable, "-m", "tf_lottery", *map(str, command), "--levels=1"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests themselves run behind a shell's &, it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (path / "replicate_0" / "theta_0").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert error.endswith("The same command goes on from here.\n")
    assert "Traceback" not in error
    assert not list(path.rglob("trained"))
    # The same run, cut short so that the test ends soon: it opens, and goes on.
    again = tf_lottery(*command, "--levels=0")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", [("--workers=1",), ("--workers=2",), ("--cluster=local",)]
)
def test_sigterm_saves_the_networks_in_training(where, tmp_path):
    path = tmp_path / "run"
    command = ("run", "lenet_mnist", "--run_dir", str(path), "--levels=0")
    with (tmp_path / "err").open("w") as err:
        running = subprocess.Popen(
            [sys.executable, "-m", "tf_lottery", *command]
            + ["--replicates=2", "--steps=50000", *where],
            cwd=ROOT,
            stderr=err,
        )
    # It says so after some steps.
    while "steps a second" not in (tmp_path / "err").read_text():
        assert running.poll() is None
        time.sleep(0.1)
    before = list(path.rglob(".ticket.unfinished/*"))
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 143
    last = (tmp_path / "err").read_text().splitlines()[-1]
    assert last == (
        "tf-lottery: terminated: saved. The same command goes on from here."
    )
    networks = 1 if where == ("--workers=1",) else 2
    saved = {*path.rglob(".ticket.unfinished/*")}
    assert len({file.parent for file in saved - {*before}}) == networks
    assert not list(path.rglob("trained"))


@pytest.mark.slow
def test_importing_the_package_changes_nothing():
    code = """
import os, random, sys
import numpy as np
before = dict(os.environ)
import tf_lottery
assert dict(os.environ) == before
assert "tensorflow" not in sys.modules
import tensorflow as tf, keras
policy, level = keras.config.dtype_policy().name, tf.get_logger().level
model = tf.keras.Model
after_tf = dict(os.environ)
state = random.getstate(), np.random.get_state()[1].sum()
for name in tf_lottery.__all__:
    getattr(tf_lottery, name)
assert tf.keras.Model is model is keras.Model
assert keras.config.dtype_policy().name == policy
assert tf.get_logger().level == level
assert dict(os.environ) == after_tf
assert "tensorflow_model_optimization" not in sys.modules
assert "tensorflow_datasets" not in sys.modules
assert (random.getstate(), np.random.get_state()[1].sum()) == state
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


QUICK = {
    "--help": (0, "commands"),
    "run --help": (0, "--scale {quick,paper}"),
    "export --help": (0, "--output OUT"),
    "completion --help": (0, ".bashrc"),
    "--version": (0, "tf-lottery "),
    "list": (0, "lenet_mnist"),
    "completion bash": (0, "_python_argcomplete"),
    "rnu": (2, "'run'"),
    "run --leves": (2, "'--levels'"),
    "run lenet_mnis": (2, "'lenet_mnist'"),
}


def test_what_needs_no_tensorflow_does_not_import_it():
    code = f"""
import contextlib, io, sys
from tf_lottery.__main__ import main
for line, (status, word) in {QUICK}.items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            found = main(line.split())
        except SystemExit as exit:
            found = exit.code
    assert found == status, line
    assert word in said.getvalue(), said.getvalue()
heavy = {{"tensorflow", "keras", "numpy", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("word", "at_once"), [("list", ""), ("list", "1"), ("--help", "")]
)
def test_a_reader_that_leaves_early_is_no_error(word, at_once):
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "tf_lottery", word],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": at_once},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert result.stderr == b""
    assert result.returncode == 141


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(environment, colours):
    known = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    ours, theirs = pty.openpty()
    status = subprocess.run(
        [sys.executable, "-m", "tf_lottery", "rnu"],
        cwd=ROOT,
        env={**known, **environment},
        stderr=theirs,
        timeout=60,
    ).returncode
    said = os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)
    assert status == 2
    assert said.startswith(b"\x1b[1;31mtf-lottery:\x1b[0m ") == colours
    assert (b"\x1b" in said) == colours


def test_a_fault_is_a_traceback_and_status_1():
    code = """
import sys
import numpy as np
from tf_lottery import __main__, cli
cli.COMMANDS["list"].execute = lambda _: np.zeros(2) + np.zeros(3)
sys.exit(__main__.main(["list"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ValueError: operands could not be broadcast" in result.stderr


def test_outcomes_of_claims_are_coloured_on_a_terminal(monkeypatch):
    from tf_lottery.cli import report
    from tf_lottery.experiment import report as run_report

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines = ["shown: a: b", "not shown: c", "too few replicates: d", ""]
    monkeypatch.setattr(run_report, "write", lambda run_dir: lines)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report.execute(argparse.Namespace(run_dir="anywhere"))
    assert terminal.getvalue().splitlines() == [
        "\x1b[32mshown\x1b[0m: a: b",
        "\x1b[33mnot shown\x1b[0m: c",
        "too few replicates: d",
        "",
    ]
