"""This module knows the command line."""

import sys
from collections.abc import Sequence

from absl.flags import argparse_flags

from tf_lottery.command_line import COMMANDS
from tf_lottery.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tf-lottery` and returns its exit status.

    Args:
        argv: The arguments; None: those of the process.

    Returns:
        0; 2 after bad input, with one line on standard error; 130 after
        Ctrl-C.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.execute(arguments)
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        print(f"tf-lottery: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "tf-lottery: interrupted. The same command goes on from here.",
            file=sys.stderr,
        )
        return 130
    return 0


class _Parser(argparse_flags.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}. Try: {self.prog} --help\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="tf-lottery",
        description="Find, prove and hand on lottery tickets "
        "(Frankle & Carbin 2019).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"tf-lottery {__version__}",
    )
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", parser_class=_Parser
    )
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.TEXT,
            description=command.TEXT,
            allow_abbrev=False,
        )
        added.set_defaults(execute=command.execute)
        command.add_arguments(added)
    return parser


if __name__ == "__main__":
    sys.exit(main())
