"""This module knows the command line."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl.flags import argparse_flags

from tf_lottery.cli import COMMANDS, colors, completion
from tf_lottery.core import errors, registry
from tf_lottery.core.version import __version__

_TEXT = """find, prove and hand on lottery tickets (Frankle & Carbin 2019)

commands, of each of which `tf-lottery COMMAND --help` says more:
"""
_EPILOG = """examples:
  tf-lottery run lenet_mnist --run_dir runs/lenet
  tf-lottery report runs/lenet
  tf-lottery export runs/lenet --max_drop 0.005 --output served

exit status: 0 done; 1 a fault in tf-lottery; 2 bad input, said in one line;
130 interrupted by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tf-lottery` and returns its exit status.

    Args:
        argv: The arguments; None: those of the process.

    Returns:
        0; 2 after bad input, with one line on standard error; 130 after
        Ctrl-C; 141 where nobody reads what is printed, as after `| head`.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still to be written at the end must go somewhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
        return 141  # 128 + SIGPIPE, as other programs that it ends


def _run(argv: Sequence[str] | None) -> int:
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:  # A shell completes a command line.
            completion.complete(parser)
        arguments = parser.parse_args(argv)
        arguments.execute(arguments)
    except BrokenPipeError:
        raise
    except (errors.UserError, OSError) as error:
        _say(" ".join(str(error).split()))
        return 2
    except KeyboardInterrupt:
        _say("interrupted. The same command goes on from here.")
        return 130
    return 0


def _say(message: str, who: str = "tf-lottery") -> None:
    who = colors.paint(f"{who}:", colors.RED, sys.stderr)
    print(f"{who} {message}", file=sys.stderr)


class _Parser(argparse_flags.ArgumentParser):
    """A parser whose errors are one line, and suggest what was meant."""

    commands: dict[str, argparse.ArgumentParser] = {}

    def error(self, message: str) -> None:
        """Says what is wrong, and ends the process."""
        end = "" if message.endswith("?") else "."
        _say(f"{message}{end} Try: {self.prog} --help", self.prog)
        self.exit(2)

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Names an unknown flag first, for it may hide what else is missing.

        `argparse` has no public list of flags; tests pin this one.
        """
        words = sys.argv[1:] if args is None else args
        known = list(self._option_string_actions)
        for word in words:
            command = self.commands and not word.startswith("-")
            if word == "--" or command:  # with flags of its own
                break
            flag = word.partition("=")[0]
            if flag.startswith("--") and " " not in flag and flag not in known:
                nearest = registry.nearest(flag, known)
                dot = "." if nearest else ""
                self.error(f"unknown flag {flag!r}{dot}{nearest}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggests a choice. `argparse` has no public way; tests pin it."""
        if action.choices is not None:
            known = dict.fromkeys(action.choices)
            registry.get(known, value, action.dest)


def _parser() -> _Parser:
    parser = _Parser(
        prog="tf-lottery",
        usage="tf-lottery [--help] [--version] COMMAND ...",
        description=_TEXT
        + "\n".join(f"  {n:<12}{c.TEXT}" for n, c in COMMANDS.items()),
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"tf-lottery {__version__}",
    )
    commands = parser.add_subparsers(
        required=True,
        dest="command",
        metavar="COMMAND",
        help=argparse.SUPPRESS,
        parser_class=_Parser,
        prog="tf-lottery",
    )
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            description=command.TEXT,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(execute=command.execute)
        command.add_arguments(added)
    parser.commands = dict(commands.choices)
    parser.set_defaults(commands=parser.commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
