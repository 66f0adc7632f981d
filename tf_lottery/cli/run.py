"""The command `run`."""

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from tf_lottery.cli import report
from tf_lottery.cli.silence import silence_tensorflow
from tf_lottery.cli.terminal import show
from tf_lottery.core import registries, termination
from tf_lottery.core.errors import UserError

if TYPE_CHECKING:
    from tf_lottery.experiment.config import Config

TEXT = "run an experiment, or the part of it that is not done yet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the preset, the settings, and how networks are trained."""
    parser.add_argument(
        "preset",
        metavar="PRESET",
        choices=registries.PRESETS,
        help="name of an experiment; `tf-lottery list` shows all",
    )
    parser.add_argument(
        "--run_dir",
        required=True,
        metavar="DIR",
        help="a folder or gs://bucket/folder for all results; the same "
        "command goes on from there",
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
        help="number of seeds: 5, or 5:8 for 5, and 8 if those do not decide",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="training steps per network"
    )
    parser.add_argument(
        "--controls",
        metavar="NAMES",
        help="names, separated by commas: reinit,shuffle",
    )
    parser.add_argument(
        "--seed", metavar="S", help="seed of every random choice (default: 0)"
    )
    parser.add_argument(
        "--data_dir",
        metavar="D",
        help="folder of TensorFlow Datasets (default: ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="processes to train in (default: the fastest number)",
    )
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        choices=registries.STRATEGIES,
        help="devices: auto, one_device, mirrored, multi_worker or tpu",
    )
    parser.add_argument(
        "--cluster",
        metavar="local|auto|ADDRESS",
        help="a Ray cluster to train on: one of this machine's cores, the one "
        "that this machine is a node of, or that of a head node",
    )
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="train only share I of N, counted from 0: for array jobs",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bytes every time on a GPU too; slower",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print how networks would be trained, and train none",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting; repeatable; a JSON list of values is a sweep",
    )


def execute(arguments: argparse.Namespace) -> None:
    """Runs the experiment or the sweep and reports, or explains it."""
    if arguments.cluster:
        _leave_gpus_to_workers()
    strategy = _strategy(arguments.strategy)
    by_label = configs(arguments)
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(
            f"--workers must be 1 or more; got {arguments.workers}."
        )
    from tf_lottery import experiment

    options = {
        "workers": arguments.workers,
        "data_dir": arguments.data_dir,
        "strategy": strategy,
        "cluster": arguments.cluster,
    }
    shard = experiment.Shard.parse(arguments.shard)
    if arguments.explain:
        shards = shard.within({n: c.looks.last for n, c in by_label.items()})
        for label, config in by_label.items():
            lines = experiment.explain(config, shard=shards[label], **options)
            show("\n".join([label, *lines] if label else lines))
        return
    options |= {"deterministic": arguments.deterministic, "shard": shard}
    target = arguments.run_dir, arguments.preset
    with termination.on_sigterm():
        if "" in by_label:
            run = experiment.run_experiment(by_label[""], *target, **options)
            runs = [run] if run else []
        else:
            runs = experiment.run_sweep(by_label, *target, **options)
    if not runs:
        return  # Only the chief writes the report.
    if shard.count > 1 and any(
        experiment.unfinished(config, run)
        for config, run in zip(by_label.values(), runs, strict=True)
    ):
        show(
            f"Shard {arguments.shard} is done, others are not. Once they are: "
            f"tf-lottery report {shlex.quote(arguments.run_dir)}"
        )
        return
    report.execute(arguments)


def _leave_gpus_to_workers() -> None:
    def hide() -> None:
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")

    with silence_tensorflow(first=hide):
        pass


def _strategy(name: str | None) -> Any:
    """Returns a strategy by name, created before TensorFlow lists devices."""
    if name is None:
        return None
    created: list[Any] = []

    def create() -> None:
        from tf_lottery.training.distribution import strategies

        created.append(strategies.get(name))

    with silence_tensorflow(first=create):
        return created[0]


def configs(arguments: argparse.Namespace) -> "dict[str, Config]":
    """Returns the configurations of a run or sweep, by label.

    Args:
        arguments: The arguments of `run`.
    """
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
