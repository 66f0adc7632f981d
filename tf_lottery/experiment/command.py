"""The command that repeats a run of a preset."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tf_lottery.experiment.config import Config
from tf_lottery.experiment.presets import PRESETS

_FLAGS = ("levels", "replicates", "controls", "seed")


def command(
    preset: str,
    settings: Mapping[str, Any],
    run_dir: str = "DIR",
    deterministic: bool = False,
) -> str:
    """Returns the command that repeats a run of a preset.

    It is written from the settings of the run, not from the command that was
    typed: a run may have grown by several commands, or in Python.

    Args:
        preset: The preset's name.
        settings: All settings of the run.
        run_dir: The run directory in the command.
        deterministic: Whether the run used `--deterministic`.

    Returns:
        The command, with the scale that fewest settings differ from; empty if
        the run has no preset.
    """
    if preset not in PRESETS or not settings:
        return ""
    config = Config().replace(settings)
    scale, changed = min(
        (
            (scale, _differences(config, scaled))
            for scale, scaled in PRESETS[preset].items()
        ),
        key=lambda choice: len(choice[1]),
    )
    words = ["tf-lottery", "run", preset, "--scale", scale]
    for name in sorted(changed, key=lambda n: (n not in _FLAGS, n)):
        value = changed[name]
        if isinstance(value, tuple):
            text = ",".join(value)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
        if name in _FLAGS:
            words += [f"--{name}", text]
        else:
            words += ["--set", f"{name}={text}"]
    if deterministic:
        words.append("--deterministic")
    return shlex.join([*words, "--run_dir", run_dir])


def _differences(config: Config, preset: Config) -> dict[str, Any]:
    """Returns the settings in which a configuration differs from a preset."""
    return {
        name: getattr(config, name)
        for name in vars(config)
        if getattr(config, name) != getattr(preset, name)
    }
