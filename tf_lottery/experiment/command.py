"""This module knows the command that makes a run."""

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
    """Returns the command that makes a run of a preset again.

    It is written from the settings that the run was made with, not from what
    was typed: a run that grew in several commands, or in Python, was made by
    none of them alone.

    Args:
        preset: The preset's name.
        settings: All settings of the run.
        run_dir: Where the command should keep it.
        deterministic: Whether the run was made with `--deterministic`.

    Returns:
        The command, at the scale that fewest settings differ from; empty if
        the run is of no preset.
    """
    if preset not in PRESETS or not settings:
        return ""
    config = Config().replace(settings)
    scale, changed = min(
        (
            (scale, _differences(config, made))
            for scale, made in PRESETS[preset].items()
        ),
        key=lambda found: len(found[1]),
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
