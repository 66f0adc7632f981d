"""The command `power`."""

import argparse
import math
from typing import TYPE_CHECKING

from tf_lottery.cli.silence import silence_tensorflow
from tf_lottery.core.errors import UserError

if TYPE_CHECKING:
    from tf_lottery.analysis.power import Effects

TEXT = "say how many replicates a verdict needs, before training"

_EFFECTS = ("share", "share_sd", "gain", "gain_sd")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a run to take effects from, and effects to assume."""
    parser.add_argument(
        "run_dir",
        metavar="DIR",
        nargs="?",
        help="a run of three replicates or more to take effects and their "
        "spread from; the flags below replace its numbers",
    )
    parser.add_argument(
        "--level",
        type=int,
        metavar="L",
        help="its level (default: the one that is tested first)",
    )
    parser.add_argument(
        "--share",
        type=float,
        metavar="F",
        help="steps that tickets take to the dense network's lowest validation "
        "loss, as a share of the dense network's: 0.6",
    )
    parser.add_argument(
        "--share_sd",
        type=float,
        metavar="F",
        help="standard deviation of its logarithm between trainings: 0.3",
    )
    parser.add_argument(
        "--gain",
        type=float,
        metavar="F",
        help="gain of the deciding metric at early stop: 0.002 is 0.2 points",
    )
    parser.add_argument(
        "--gain_sd",
        type=float,
        metavar="F",
        help="standard deviation of the gain between trainings: 0.0015",
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="F",
        help="how much worse counts as no worse (default: 0.002)",
    )
    parser.add_argument(
        "--power",
        type=float,
        default=0.9,
        metavar="P",
        help="wanted probability that a true effect is shown (default: 0.9)",
    )


def execute(arguments: argparse.Namespace) -> None:
    """Prints the power for several numbers of replicates."""
    from tf_lottery.analysis import power

    if not 0 < arguments.power < 1:
        raise UserError(f"--power must be in (0, 1); got {arguments.power:g}.")
    effects = _effects(arguments)
    share = 100 * math.exp(-effects.speed)
    print(
        f"Assumed: tickets take {share:.0f} % of the dense network's steps "
        f"(sd of the logarithm {effects.speed_sd:.2g}) and gain "
        f"{effects.gain:+.2g} (sd {effects.gain_sd:.2g}; margin "
        f"{effects.margin:.2g})."
    )
    print("replicates  probability that the verdict names the ticket")
    for n in (3, 4, 5, 6, 8, 10, 15, 20, 30):
        print(f"{n:>10}  {100 * power.power(effects, n):.0f} %")
    needed = power.replicates(effects, arguments.power)
    if needed is None:
        print("No number of replicates shows this ticket to win.")
    else:
        print(f"{needed} replicates for {100 * arguments.power:g} %.")


def _effects(arguments: argparse.Namespace) -> "Effects":
    from tf_lottery.analysis.deciding import MARGIN
    from tf_lottery.analysis.power import Effects

    margin = arguments.margin
    if arguments.run_dir is not None:
        measured = _measured(arguments.run_dir, arguments.level)
        known = {
            "share": math.exp(-measured.speed),
            "share_sd": measured.speed_sd,
            "gain": measured.gain,
            "gain_sd": measured.gain_sd,
        }
        margin = measured.margin if margin is None else margin
    else:
        known = {}
    for name in _EFFECTS:
        value = getattr(arguments, name)
        if value is not None:
            known[name] = value
    missing = [f"--{name}" for name in _EFFECTS if name not in known]
    if missing:
        raise UserError(
            f"{', '.join(missing)} must be given, or a run to take them from."
        )
    for name in ("share", "share_sd", "gain_sd"):
        if not 0 < known[name] < math.inf:
            raise UserError(f"--{name} must be above 0; got {known[name]:g}.")
    return Effects(
        -math.log(known["share"]),
        known["share_sd"],
        known["gain"],
        known["gain_sd"],
        MARGIN if margin is None else margin,
    )


def _measured(run_dir: str, level: int | None) -> "Effects":
    with silence_tensorflow():
        from tf_lottery.analysis import verdict
        from tf_lottery.analysis.power import Effects
        from tf_lottery.runs.run_directory import RunDirectory
    judgment = verdict.judge(RunDirectory.open(run_dir).records())
    by_level = {c.level: c for c in verdict.sequence(judgment.comparisons)}
    if level is None:
        level = next(iter(by_level), None)
    comparison = by_level.get(level) if level is not None else None
    if comparison is None or not comparison.gain.has_interval:
        raise UserError(
            f"{run_dir!r} has no tickets of three replicates or more at level "
            f"{level}: their spread is not known."
        )
    return Effects.measured(comparison, judgment.metric.margin)
