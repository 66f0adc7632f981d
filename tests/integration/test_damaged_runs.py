"""Damaged files of a run: `run` heals them, `report` and `export` name them.

Each file that counts is removed, emptied, truncated, altered in one bit, or
exchanged for that of another network. None is used as if it were good.
"""

import json
import shutil

import pytest
from run_processes import TINY, contents

from tf_lottery import __main__

SETTINGS = ["model_options", "evaluate_every", "rate"]
WORDS = [
    *("--steps", "100", "--levels", "1", "--replicates", "1"),
    *("--controls", "reinit", "--set", "rates={}", "--set", "rewind=20it"),
    *(w for n in SETTINGS for w in ("--set", f"{n}={json.dumps(TINY[n])}")),
]
LEVEL = "replicate_0/level_1"
FILES = [
    f"{LEVEL}/ticket/ticket",
    f"{LEVEL}/ticket/trained",
    f"{LEVEL}/ticket/record.json",
    f"{LEVEL}/reinit/trained",
    "replicate_0/level_0/ticket/record.json",
]
THETAS = [
    "replicate_0/theta_0/checkpoint.index",
    "replicate_0/theta_0/record.json",
    "replicate_0/theta_20/checkpoint.data-00000-of-00001",
]
DAMAGES = ["missing", "empty", "truncated", "flipped", "swapped"]


def run(folder):
    words = ["run", "lenet_mnist", "--run_dir", str(folder), *WORDS]
    return __main__.main(words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder) == 0
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def damage(folder, name, how):
    path = folder / name
    data = bytearray(path.read_bytes())
    if how == "missing":
        return path.unlink()
    if how == "empty":
        return path.write_bytes(b"")
    if how == "truncated":
        return path.write_bytes(data[: len(data) // 2])
    if how == "flipped":
        data[len(data) // 2] ^= 4
        return path.write_bytes(data)
    other = name.replace("level_1/ticket", "level_0/ticket")
    if other == name:
        other = name.replace("reinit", "ticket").replace("level_0", "level_1")
    return shutil.copy(folder / other, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [(FILES[1], how) for how in DAMAGES]
    + [(name, "flipped") for name in FILES if name != FILES[1]]
    + [(FILES[0], "swapped"), (FILES[2], "missing"), (FILES[2], "swapped")],
)
def test_reports_and_exports_name_a_damaged_file(
    copy, tmp_path, name, how, capsys
):
    damage(copy, name, how)
    out = str(tmp_path / "out.ticket")
    words = ["--format", "ticket", "--output", out]
    level = name[len("replicate_0/level_")]
    capsys.readouterr()
    statuses = [
        __main__.main(["report", str(copy)]),
        __main__.main(["export", str(copy), *words, "--level", level]),
    ]
    said = capsys.readouterr().err
    if name.endswith("record.json") and how == "missing":
        # It is as if the network had not been trained.
        assert statuses[1] == 2
        assert "has no ticket of replicate 0" in said
    elif "reinit" in name:
        assert statuses == [2, 0]
        assert f"{copy}/{name}' is damaged" in said
    elif name.endswith("ticket/ticket"):
        assert statuses[1] == 2
        assert f"{copy}/{name}' is damaged" in said
    else:
        assert statuses == [2, 2]
        assert said.count(f"{copy}/{name}' is damaged") == 2
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "flipped") for name in FILES + THETAS]
    + [(FILES[0], "missing"), (FILES[1], "swapped"), (FILES[2], "empty")]
    + [(THETAS[2], "missing"), ("results.csv", "missing")],
)
def test_a_run_heals_a_damaged_file(whole, copy, name, how):
    damage(copy, name, how)
    assert run(copy) == 0
    assert contents(copy) == contents(whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES[1:4])
def test_without_settings_nothing_is_done(copy, how, capsys):
    damage(copy, "config.json", how)
    before = contents(copy)
    words = ["--output", "never", "--level", "1"]
    for command in (
        lambda: run(copy),
        lambda: __main__.main(["report", str(copy)]),
        lambda: __main__.main(["export", str(copy), *words]),
    ):
        assert command() == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"{copy}/config.json' is damaged" in last
    assert contents(copy) == before
