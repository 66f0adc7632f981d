"""Training speed of tf_lottery and its rivals on the CPU.

Steps per second of LeNet-300-100 on MNIST at batch 60 with Adam 1.2e-3, masks
at density 0.21; evaluation is left out everywhere. The speed of one machine
drifts by up to 2x, so every contender runs in every round, one after the other
and each in its own process, and ratios are taken within a round.

    python benchmarks/training_speed.py --open_lth PATH_TO_A_CHECKOUT

Exits 0 whatever the ratios are, and 1 where something could not be measured.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import own_loop
import rivals_keras
import rivals_open_lth
import rivals_torch
import workload

Result = dict[str, Any]
"""`steps_per_second`, a float, and `versions`, by package."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        label: What the table calls it.
        goal: By what factor tf_lottery with masks shall be faster, at least.
        measure: From the command line to the result; runs in the worker.
    """

    label: str
    goal: float | None
    measure: Callable[[argparse.Namespace], Result]


CONTENDERS = {
    "tf_lottery": Contender(
        f"tf_lottery, density {workload.DENSITY:g}",
        None,
        lambda flags: own_loop.train(flags.steps, masked=True),
    ),
    "tf_lottery_no_masks": Contender(
        "tf_lottery, no masks (masks shall cost <= 10 %)",
        0.9,
        lambda flags: own_loop.train(flags.steps, masked=False),
    ),
    "keras_fit": Contender(
        "keras fit, as called",
        4.0,
        lambda flags: rivals_keras.fit_as_called(flags.steps, flags.mnist),
    ),
    "keras_fit_best": Contender(
        "keras fit, best setting",
        1.6,
        lambda flags: rivals_keras.fit_best_setting(flags.steps, flags.mnist),
    ),
    "tfmot": Contender(
        "tfmot prune_low_magnitude in fit",
        4.0,
        lambda flags: rivals_keras.tfmot_in_fit(flags.steps, flags.mnist),
    ),
    "torch": Contender(
        "PyTorch tuned by hand, in memory, fused Adam",
        2.2,
        lambda flags: rivals_torch.train(flags.steps, flags.mnist),
    ),
    "open_lth": Contender(
        "open_lth, its own train()",
        14.0,
        lambda flags: rivals_open_lth.train(
            flags.steps, flags.mnist, flags.open_lth
        ),
    ),
}


def main() -> None:
    """Measures every contender in every round and prints the table."""
    parser = _parser()
    flags = parser.parse_args()
    if flags.worker:
        # On a line of its own: `fit` leaves its progress bar unfinished.
        print("\n" + json.dumps(CONTENDERS[flags.worker].measure(flags)))
        return
    names = list(CONTENDERS)
    if flags.torch_python is None:
        print("PyTorch is skipped: give a python that has it, --torch_python.")
        names.remove("torch")
    if flags.open_lth is None:
        print("open_lth is skipped: give a checkout of it as --open_lth PATH.")
        names.remove("open_lth")
    elif flags.torch_python is None:
        parser.error("--open_lth needs --torch_python.")
    elif not (flags.open_lth / "training" / "train.py").is_file():
        parser.error(
            f"--open_lth: {flags.open_lth} is no checkout of open_lth."
        )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        flags.mnist = pathlib.Path(directory) / "mnist.npz"
        workload.write_mnist(flags.mnist)
        rounds = [_measure_round(names, i, flags) for i in range(flags.rounds)]
    print("\n".join(_table(names, rounds)))
    print("\n".join(circumstances(rounds, time.perf_counter() - started)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=_positive, default=3, help="default: %(default)s")
    add(
        "--steps",
        type=_positive,
        default=1400,
        help="steps timed per contender and round; `fit` rounds them up to a\n"
        "multiple of 700, the steady part of an epoch; default: %(default)s",
    )
    add("--open_lth", type=pathlib.Path, help="checkout of open_lth")
    add(
        "--torch_python",
        help="python with PyTorch and, for open_lth, Pillow and torchvision",
    )
    add("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    add("--mnist", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {text}.")
    return int(text)


def _measure_round(
    names: list[str], number: int, flags: argparse.Namespace
) -> dict[str, Result]:
    # Every other round runs backwards, so that a steady drift cancels out.
    results = {}
    for name in names if number % 2 == 0 else names[::-1]:
        results[name] = _run_worker(name, flags)
        speed = results[name]["steps_per_second"]
        print(f"round {number + 1}: {name} {speed:.0f} steps/s", flush=True)
    return results


def _run_worker(name: str, flags: argparse.Namespace) -> Result:
    is_torch = name in ("torch", "open_lth")
    python = flags.torch_python if is_torch else sys.executable
    command = [python, __file__, f"--worker={name}", f"--steps={flags.steps}"]
    command.append(f"--mnist={flags.mnist}")
    if name == "open_lth":
        command.append(f"--open_lth={flags.open_lth}")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_BACKEND": "tensorflow",
        },
    )
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _table(names: list[str], rounds: list[dict[str, Result]]) -> list[str]:
    lines = [
        "",
        "| | steps/s, median [min max] | tf_lottery is faster by, "
        "paired median [min max] | goal |",
        "|---|---|---|---|",
    ]
    for name in names:
        row = CONTENDERS[name]
        speeds = [result[name]["steps_per_second"] for result in rounds]
        ratios = [
            result["tf_lottery"]["steps_per_second"] / speed
            for result, speed in zip(rounds, speeds, strict=True)
        ]
        goal = f">= {row.goal:g}" if row.goal else ""
        lines.append(
            f"| {row.label} | {spread(speeds, 0)} | {spread(ratios, 2)} "
            f"| {goal} |"
        )
    return lines


def spread(values: list[float], digits: int) -> str:
    """Returns median [min max]."""
    median, low, high = (
        f"{f(values):.{digits}f}" for f in (statistics.median, min, max)
    )
    return f"{median} [{low} {high}]"


def circumstances(rounds: list[dict[str, Result]], seconds: float) -> list[str]:
    """Returns what a reader needs to judge, and to repeat, the figures."""
    versions = {"python": platform.python_version()}
    for result in rounds[0].values():
        versions.update(result["versions"])
    return [
        "",
        f"rounds: {len(rounds)}, {seconds:.0f} s in all",
        f"hardware: {_cpu()}, {os.cpu_count()} cores",
        "versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()),
        f"commit: {_commit()}",
        f"command: {shlex.join(['python', *sys.argv])}",
    ]


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line for line in lines if line.startswith("model name")]
    return models[0].split(":")[1].strip() if models else platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=pathlib.Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "none"


if __name__ == "__main__":
    main()
