"""Commands of `tf-lottery`.

A command is one file with `TEXT`, `add_arguments` and `execute`, and one line
in `COMMANDS`. It imports TensorFlow only when it runs, so that `--help` is
quick.
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
"""Every command by name, in the order of `--help`."""
