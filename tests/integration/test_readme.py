"""What the README says is so, and what the pages of docs/ say of commands."""

import pathlib
import re
import shlex

import pytest

from tf_lottery import __main__, cli

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(p.read_text() for p in sorted(ROOT.glob("docs/*.md")))]


def found(pattern):
    """Returns what stands so on any page."""
    return sorted({hit for p in PAGES for hit in re.findall(pattern, p, re.M)})


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch):
    (code,) = code_blocks("python")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    ticket, small = names["ticket"], names["small"]
    assert ticket.level >= 1
    assert small.density == pytest.approx(0.217, abs=0.01)
    assert ticket.metrics["validation_accuracy_at_early_stop"] > 0.97
    assert (tmp_path / "mine.ticket").exists()
    assert (tmp_path / "served" / "saved_model.pb").exists()


def test_the_commands_are_those_that_ci_runs():
    install, run, test = (
        block.strip().split(" && ") for block in code_blocks("sh")[:3]
    )
    ci = (ROOT / ".ci" / "run").read_text()
    assert install[2:] == ["pip install ."]
    assert run == [
        "tf-lottery run lenet_mnist --scale quick --run_dir runs/lenet"
    ]
    tests = "pytest -n 2 --dist loadfile"
    assert test[1:] == ["pip install '.[test]'", tests]
    for command in ("tf-lottery run lenet_mnist --scale quick", tests):
        assert command in ci


@pytest.mark.parametrize(
    "line",
    found(r"^tf-lottery (run \w+_\w+ .*?)(?: {2,}| &&|$)"),
)
def test_every_run_is_one_that_can_be_asked_for(line):
    arguments = __main__._parser().parse_args(shlex.split(line))
    assert cli.run.configs(arguments)


@pytest.mark.parametrize(
    "path", found(r"\b(?:tf_lottery|tests|benchmarks)/[\w./]*\w")
)
def test_every_path_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", README)))
)
def test_every_link_leads_somewhere(path):
    assert (ROOT / path).exists()


def test_every_flag_of_the_command_line_exists():
    help_texts = []
    for action in __main__._parser()._subparsers._group_actions:
        for parser in action.choices.values():
            help_texts.append(parser.format_help())
    for flag in set(re.findall(r"--[a-z_]+", "".join(code_blocks("")))):
        assert any(flag in text for text in help_texts), flag
