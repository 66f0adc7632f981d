"""The command line `tf-lottery`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl.flags import argparse_flags

from tf_lottery.cli import COMMANDS, colors, completion
from tf_lottery.core import errors, registry, termination
from tf_lottery.core.version import __version__

_TEXT = """find, test and export lottery tickets (Frankle & Carbin 2019)

commands; `tf-lottery COMMAND --help` says more about each:
"""
_EPILOG = """examples:
  tf-lottery run lenet_mnist --run_dir runs/lenet
  tf-lottery report runs/lenet
  tf-lottery export runs/lenet --max_drop 0.01 --output served

exit status: 0 done; 1 a fault in tf-lottery, with a traceback; 2 bad input,
explained in one line; 130 interrupted by Ctrl-C; 143 ended by SIGTERM, after
the networks in training were saved
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tf-lottery` and returns its exit status.

    Args:
        argv: The arguments. `None` takes those of the process.

    Returns:
        0; 2 after bad input, with one line on standard error; 130 after
        Ctrl-C; 143 after SIGTERM; 141 if the reader of standard output has
        gone, as in `| head`.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes both streams once more at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.dup2(null, sys.stderr.fileno())
        return 141  # 128 + SIGPIPE, the status of a program that it ends.


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
        _print_error(" ".join(str(error).split()))
        return 2
    except KeyboardInterrupt:
        _print_error("interrupted. The same command goes on from here.")
        return 130
    except termination.Terminated:
        _print_error("terminated: saved. The same command goes on from here.")
        return 143  # 128 + SIGTERM
    return 0


def _print_error(message: str, program: str = "tf-lottery") -> None:
    prefix = colors.paint(f"{program}:", colors.RED, sys.stderr)
    print(f"{prefix} {errors.printable(message)}", file=sys.stderr)


class _Parser(argparse_flags.ArgumentParser):
    """A parser whose errors are one line and suggest the nearest word."""

    commands: dict[str, argparse.ArgumentParser] = {}

    def error(self, message: str) -> None:
        """Prints what is wrong, and ends the process with status 2."""
        end = "" if message.endswith("?") else "."
        _print_error(f"{message}{end} Try: {self.prog} --help", self.prog)
        self.exit(2)

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Reports an unknown flag before any missing argument.

        `argparse` has no public list of flags; tests pin this one.
        """
        words = sys.argv[1:] if args is None else args
        known = list(self._option_string_actions)
        for word in words:
            is_command = self.commands and not word.startswith("-")
            if word == "--" or is_command:  # A command has other flags.
                break
            flag = word.partition("=")[0]
            if flag.startswith("--") and " " not in flag and flag not in known:
                nearest = registry.nearest(flag, known)
                dot = "." if nearest else ""
                self.error(f"unknown flag {flag!r}{dot}{nearest}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises an error that suggests a choice.

        `argparse` has no public way to change its message; tests pin this one.
        """
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
        subparser = commands.add_parser(
            name,
            description=command.TEXT,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(execute=command.execute)
        command.add_arguments(subparser)
    parser.commands = dict(commands.choices)
    parser.set_defaults(commands=parser.commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
