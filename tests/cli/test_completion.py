"""Completion of commands, flags and names, in the shells themselves."""

import os
import pathlib
import pty
import select
import shutil
import subprocess
import sys

import pytest

from tf_lottery import __main__
from tf_lottery.export import formats

ROOT = pathlib.Path(__file__).parents[2]


def test_dtypes_are_those_of_the_formats():
    parser = __main__._parser().commands["export"]
    (dtype,) = (a for a in parser._actions if a.dest == "dtype")
    known = {d for f in formats.FORMATS.values() for d in f.dtypes}
    assert set(dtype.choices) == known


# What stands before the cursor, and what it can become.
TYPED = {
    "r": ["report", "run"],
    "run le": ["lenet_mnist"],
    "run --le": ["--levels"],
    "run --scale q": ["quick"],
    "run --scale=p": ["paper"],
    "run --controls noise,reinit_s": [
        "noise,reinit_sampled",
        "noise,reinit_sign",
    ],
    "run --set crit": ["criterion="],
    "run --data_dir so": ["some_dir"],
    "run --levels ": [],
    "report so": ["some_dir"],
    "export x --format sparse": ["sparse_litert", "sparse_saved_model"],
    "export x --output so": ["some_dir", "some_file"],
    "completion z": ["zsh"],
    "list ": [],
}


def bash(script, typed):
    line = f"tf-lottery {typed}"
    # bash takes "=" for a word.
    words = line.replace("=", " = ").split(" ")
    code = f"""{script}
COMP_WORDS=({" ".join(map(repr, words))}) COMP_CWORD={len(words) - 1}
COMP_LINE={line!r} COMP_POINT={len(line)} COMP_TYPE=9
_python_argcomplete tf-lottery
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return said("bash", "--norc", "-c", code)


def fish(script, typed):
    code = f"{script}\ncomplete -C 'tf-lottery {typed}'"
    lines = said("fish", "--no-config", "-c", code)
    return [line.partition("\t")[0] for line in lines]


def said(*command):
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True
    )
    return [line.rstrip(" /") for line in result.stdout.splitlines() if line]


def script_for(shell, capsys):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert __main__.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a directory and a file to complete."""
    (tmp_path / "some_dir").mkdir()
    (tmp_path / "some_file").touch()
    program = tmp_path / "bin" / "tf-lottery"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
[ -n "$_ARGCOMPLETE" ] || {{ echo "$@" > {tmp_path}/typed; exit; }}
PYTHONPATH={ROOT} exec {sys.executable} -m tf_lottery "$@"
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("shell", [bash, fish])
def test_a_shell_completes_what_is_typed(shell, capsys):
    script = script_for(shell.__name__, capsys)
    completed = {typed: sorted(shell(script, typed)) for typed in TYPED}
    # fish gives the flag back.
    assert {
        typed: [word.removeprefix("--scale=") for word in words]
        for typed, words in completed.items()
    } == TYPED


def test_zsh_completes_at_its_prompt(folder, capsys):
    (folder / "script").write_text(script_for("zsh", capsys))
    process, terminal = pty.fork()
    if not process:
        os.execvpe("zsh", ["zsh", "-f"], {**os.environ, "TERM": "xterm"})
    os.write(
        terminal,
        b"autoload -U compinit; compinit -u -D; . ./script\n"
        b"tf-lottery ru\tle\t--scale=q\t--controls noise,reinit_si\t "
        b"--data_dir so\t\nexit\n",
    )
    shown = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # it has ended
            break
    os.close(terminal)
    os.waitpid(process, 0)
    words = (folder / "typed").read_text().split()
    assert [word.rstrip("/") for word in words] == [
        *("run", "lenet_mnist", "--scale=quick", "--controls"),
        *("noise,reinit_sign", "--data_dir", "some_dir"),
    ], shown
