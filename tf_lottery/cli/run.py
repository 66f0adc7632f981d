"""This module knows the command `run`."""

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from tf_lottery import registries
from tf_lottery.cli import report
from tf_lottery.cli.silence import silence_tensorflow
from tf_lottery.core.errors import UserError

if TYPE_CHECKING:
    from tf_lottery.experiment.config import Config

TEXT = "run an experiment, or what of it is not done yet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the experiment, its settings, and how it is trained."""
    parser.add_argument(
        "preset",
        metavar="PRESET",
        choices=registries.PRESETS,
        help="network_dataset, as `tf-lottery list` shows them",
    )
    parser.add_argument(
        "--run_dir",
        required=True,
        metavar="DIR",
        help="where everything is kept, a folder or gs://bucket/folder; the "
        "same command goes on there",
    )
    parser.add_argument(
        "--scale",
        default="quick",
        choices=("quick", "paper"),
        help="paper: the published setting; quick: minutes (default)",
    )
    parser.add_argument("--levels", metavar="N", help="pruning rounds")
    parser.add_argument(
        "--replicates",
        metavar="R",
        help="how many seeds: 5, or 5:8 for 5, and 8 if those do not decide",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="training steps a network"
    )
    parser.add_argument(
        "--controls", metavar="NAMES", help="such as reinit,shuffle"
    )
    parser.add_argument(
        "--seed", metavar="S", help="what all chance derives from (default: 0)"
    )
    parser.add_argument(
        "--data_dir",
        metavar="D",
        help="where TensorFlow Datasets keeps data (default: its own folder)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="processes to train in (default: as is fastest here)",
    )
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        choices=registries.STRATEGIES,
        help="spread training: auto, one_device, mirrored, multi_worker or tpu",
    )
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="train share I, from 0, of N alone: for array jobs",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bytes every time on a GPU too, more slowly",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say how networks would be trained here, and train none",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting; may be repeated; a list of values is a sweep",
    )


def execute(arguments: argparse.Namespace) -> None:
    """Runs the experiment or the sweep, and reports; or explains."""
    strategy = _strategy(arguments.strategy)
    found = configs(arguments)
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(
            f"--workers must be 1 or more; got {arguments.workers}."
        )
    from tf_lottery import experiment

    how = {
        "workers": arguments.workers,
        "data_dir": arguments.data_dir,
        "strategy": strategy,
    }
    shard = experiment.Shard.parse(arguments.shard)
    if arguments.explain:
        shards = shard.within({n: c.looks.last for n, c in found.items()})
        for label, config in found.items():
            lines = experiment.explain(config, shard=shards[label], **how)
            print("\n".join([label, *lines] if label else lines))
        return
    how |= {"deterministic": arguments.deterministic, "shard": shard}
    place = arguments.run_dir, arguments.preset
    if "" in found:
        one = experiment.run_experiment(found[""], *place, **how)
        runs = [one] if one else []
    else:
        runs = experiment.run_sweep(found, *place, **how)
    if not runs:
        return  # The chief reports.
    if shard.count > 1 and any(
        experiment.unfinished(config, run)
        for config, run in zip(found.values(), runs, strict=True)
    ):
        print(
            f"Shard {arguments.shard} is done, others are not. Once they are: "
            f"tf-lottery report {shlex.quote(arguments.run_dir)}"
        )
        return
    report.execute(arguments)


def _strategy(name: str | None) -> Any:
    """Returns a strategy by name; hosts are joined before all else."""
    if name is None:
        return None
    found: list[Any] = []

    def find() -> None:
        from tf_lottery.training.distribution import strategies

        found.append(strategies.get(name))

    with silence_tensorflow(first=find):
        return found[0]


def configs(arguments: argparse.Namespace) -> "dict[str, Config]":
    """Returns the settings that the arguments of `run` ask for, by label."""
    settings = {}
    for pair in arguments.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes KEY=VALUE; got {pair!r}.")
        settings[key] = value
    for name in ("levels", "replicates", "controls", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            settings[name] = value
    if arguments.steps is not None:
        settings["length"] = f"{arguments.steps}it"
    with silence_tensorflow():
        from tf_lottery.experiment import presets, sweep
    preset = presets.get(arguments.preset, arguments.scale)
    return sweep.expand(preset, settings)
