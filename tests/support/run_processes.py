"""Processes that train runs, for tests that kill or stop them."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]


TINY = {
    "model_options": {"units": [9, 5]},
    "length": "100it",
    "evaluate_every": 20,
    "rate": 0.5,
    "levels": 2,
    "replicates": 2,
    "controls": ["reinit"],
}


class Process:
    """A process of `shard_process`, which trains one run after another."""

    def __init__(self, folder, name):
        self._stdout = folder / f"{name}.out"
        self._stderr = folder / f"{name}.err"
        self._earlier_lines = 0  # on stderr, of earlier runs
        with self._stdout.open("w") as out, self._stderr.open("w") as err:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    ROOT / "tests" / "support" / "shard_process.py",
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                text=True,
            )

    def start(self, settings, folder, freeze_at=None, shard="0/1"):
        """Starts a run; the process stops itself at the step `freeze_at`."""
        self._earlier_lines += len(self.errors())
        self._ends = self.output().count("ended") + 1
        line = json.dumps([settings, str(folder), freeze_at, shard])
        print(line, file=self.process.stdin, flush=True)

    def output(self):
        """Returns its lines on stdout."""
        return self._stdout.read_text().splitlines()

    def errors(self):
        """Returns its lines on stderr about this run."""
        return self._stderr.read_text().splitlines()[self._earlier_lines :]

    def wait(self):
        """Waits until the run has ended."""
        self.wait_until(lambda: self.output().count("ended") == self._ends)

    def wait_until(self, condition):
        """Waits for a condition that becomes true while the process runs."""
        end = time.monotonic() + 240
        while not condition():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < end, self.errors()
            time.sleep(0.02)

    def trained(self):
        """Returns the networks that it trained itself in this run."""
        return [
            line.split("  density")[0]
            for line in self.errors()
            if re.search(r"\d s$", line)
        ]

    def kill(self):
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


def contents(folder):
    """Returns the files of a run's networks and results.csv, without times.

    Checkpoints are left out: Keras numbers their layers within a process.
    """
    files = {}
    for path in sorted(folder.glob("replicate_*/level_*/*/*")):
        name = str(path.relative_to(folder))
        files[name] = path.read_bytes()
        if path.name == "record.json":
            files[name] = without_time(files[name])
    with (folder / "results.csv").open() as file:
        files["results.csv"] = list(csv.DictReader(file))
    for row in files["results.csv"]:
        del row["seconds"]
    return files


def without_time(record):
    """Returns the content of a record.json without what depends on time."""
    content = json.loads(record)
    del content["row"]["seconds"], content["sha256"]
    return content
