"""This package knows the command `completion`: a script for each shell."""

import argparse

from tf_lottery.cli.completion import bash, fish, zsh
from tf_lottery.cli.completion.specification import typed

TEXT = "print a script that completes commands, flags and names"

SHELLS = {"bash": bash.script, "zsh": zsh.script, "fish": fish.script}
"""Every shell by name, and what writes its script."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the shell."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS)
    parser.epilog = """to complete in every new terminal, append the line to:
  ~/.bashrc                    eval "$(tf-lottery completion bash)"
  ~/.zshrc, after compinit     eval "$(tf-lottery completion zsh)"
  ~/.config/fish/config.fish   tf-lottery completion fish | source
"""


def execute(arguments: argparse.Namespace) -> None:
    """Prints the script."""
    print(SHELLS[arguments.shell](typed(arguments.commands)))
