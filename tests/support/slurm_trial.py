"""Runs examples/slurm_*.sh on a real Slurm.

`python tests/support/slurm_trial.py` on a machine where `sbatch` works.
Their jobs are shortened, and requeued once in the middle. The networks must be
those of a run without Slurm. Needs `sbatch` and a node of two cores; this
Python has tf-lottery with the extra `ray`.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import run_processes

_EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
_SETTINGS = (
    "--scale quick --steps 2000 --set evaluate_every=100 --levels 1 "
    "--replicates 2"
)
_SHORTER = {
    "--scale paper --replicates 5": _SETTINGS,
    "--array=0-4": "--array=0-1",
    "--nodes=2": "--nodes=1",
    "--cpus-per-task=2": "--cpus-per-task=1",
}
_NETWORKS = 8
_SECONDS = 900
_RUN = "runs/paper"


def main() -> None:
    """Runs each example without Slurm and on it, and compares the networks."""
    with tempfile.TemporaryDirectory() as name:
        for example in sorted(_EXAMPLES.glob("slurm_*.sh")):
            calm = _prepared(example, pathlib.Path(name) / "calm")
            for task in (0, 1) if "array" in example.name else (0,):
                environment = {
                    "SLURM_ARRAY_TASK_ID": f"{task}",
                    "SLURM_ARRAY_TASK_COUNT": "2",
                    "SLURM_JOB_ID": "1",
                    "SLURM_JOB_NUM_NODES": "1",
                    "SLURM_CPUS_PER_TASK": "1",
                }
                _output(
                    *("bash", example.name),
                    cwd=calm,
                    env={**os.environ, **environment},
                )
            disturbed = _prepared(example, pathlib.Path(name) / "slurm")
            _submit(example.name, disturbed)
            command = pathlib.Path(sys.prefix) / "bin" / "tf-lottery"
            for folder in (calm, disturbed):
                _output(command, "report", folder / _RUN)
            files = run_processes.contents(calm / _RUN)
            if sum(name.endswith("/trained") for name in files) != _NETWORKS:
                raise SystemExit(f"{example.name}: not {_NETWORKS} networks")
            if run_processes.contents(disturbed / _RUN) != files:
                raise SystemExit(f"{example.name}: other files")
            print(f"{example.name}: requeued, {len(files)} files are equal")


def _prepared(example: pathlib.Path, parent: pathlib.Path) -> pathlib.Path:
    """Returns a new folder with a shorter copy of an example."""
    folder = parent / example.stem
    (folder / "logs").mkdir(parents=True)
    (folder / ".venv").symlink_to(sys.prefix)
    text = example.read_text()
    for long, short in _SHORTER.items():
        text = text.replace(long, short)
    (folder / example.name).write_text(text)
    return folder


def _submit(script: str, folder: pathlib.Path) -> None:
    """Submits a job, requeues it once in the middle; waits until it ended."""
    job = _output("sbatch", "--parsable", script, cwd=folder)
    _wait(lambda: list(folder.rglob("level_0/ticket/record.json")), folder)
    _output("scontrol", "requeue", job)
    _wait(lambda: job not in _output("squeue", "--format=%F").split(), folder)


def _wait(is_over: Callable[[], object], folder: pathlib.Path) -> None:
    for _ in range(_SECONDS):
        if is_over():
            return
        time.sleep(1)
    logs = [log.read_text() for log in folder.glob("logs/*")]
    raise SystemExit("\n".join(["Waited too long.", *logs]))


def _output(*command: str | pathlib.Path, **options: Any) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, **options
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
