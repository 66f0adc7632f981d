"""This package knows the commands of `tf-lottery`.

One file per command, with `TEXT`, `add_arguments` and `execute`, and one line
in `COMMANDS`. What is heavy is imported when a command runs, for `--help` is
to be quick.
"""

from types import ModuleType

from tf_lottery.cli import (
    completion,
    export,
    listing,
    power,
    report,
    run,
    stability,
)

COMMANDS: dict[str, ModuleType] = {
    "list": listing,
    "run": run,
    "report": report,
    "power": power,
    "stability": stability,
    "export": export,
    "completion": completion,
}
"""Every command by name, in the order in which one meets them."""
