"""The command `completion`, and the completion of command lines."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable

from tf_lottery.cli import export
from tf_lottery.core import registries

TEXT = "print a script that completes commands, flags and names"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the name of the shell."""
    parser.add_argument(
        "shell", metavar="SHELL", choices=("bash", "zsh", "fish")
    )
    parser.epilog = """to complete in every new terminal, append the line to:
  ~/.bashrc                    eval "$(tf-lottery completion bash)"
  ~/.zshrc, after compinit     eval "$(tf-lottery completion zsh)"
  ~/.config/fish/config.fish   tf-lottery completion fish | source
"""


def execute(arguments: argparse.Namespace) -> None:
    """Prints the script, which runs `tf-lottery` at every tab."""
    import argcomplete

    print(
        argcomplete.shellcode(
            ["tf-lottery"], use_defaults=False, shell=arguments.shell
        )
    )


def complete(commands: argparse.ArgumentParser) -> None:
    """Answers a shell that completes a command line, and ends the process.

    It returns if no shell asked, see `argcomplete.autocomplete`.

    Args:
        commands: The parser of `tf-lottery`.
    """
    import argcomplete
    from argcomplete import completers

    from tf_lottery.experiment.config import Config

    settings = [f"{field.name}=" for field in dataclasses.fields(Config)]
    by_metavar = {
        "DIR": completers.DirectoriesCompleter(),
        "D": completers.DirectoriesCompleter(),
        "OUT": completers.FilesCompleter(),
        "NAMES": _comma_separated(registries.CONTROLS),
        "F": _comma_separated(export.KNOWN),
        "KEY=VALUE": lambda **_: settings,
    }
    for command in commands.get_default("commands").values():
        for action in command._actions:  # argparse has no public list.
            if action.metavar in by_metavar:
                action.completer = by_metavar[action.metavar]
    argcomplete.autocomplete(
        commands,
        always_complete_options=False,
        default_completer=completers.SuppressCompleter(),
        exit_method=sys.exit,
    )


def _comma_separated(names: Iterable[str]) -> Callable[..., list[str]]:
    """Returns a completer of the last name in a list such as "a,b"."""

    def completions(prefix: str, **_: object) -> list[str]:
        before, comma, _last = prefix.rpartition(",")
        return [f"{before}{comma}{name}" for name in names]

    return completions
