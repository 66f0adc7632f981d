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
    """A process of `shard_process`, which is given one run after another."""

    def __init__(self, folder, name):
        self._said, self._told = folder / f"{name}.out", folder / f"{name}.err"
        self._lines = 0
        with self._said.open("w") as out, self._told.open("w") as err:
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

    def start(self, settings, folder, freeze_at=None):
        self._lines += len(self.told())
        self._ends = self.said().count("ended") + 1
        line = json.dumps([settings, str(folder), freeze_at])
        print(line, file=self.process.stdin, flush=True)

    def said(self):
        return self._said.read_text().splitlines()

    def told(self):
        """What it wrote of this run so far."""
        return self._told.read_text().splitlines()[self._lines :]

    def wait(self):
        self.by(lambda: self.said().count("ended") == self._ends)

    def by(self, condition):
        end = time.monotonic() + 240
        while not condition():
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < end, self.told()
            time.sleep(0.02)

    def trained(self):
        """The networks it trained itself in this run."""
        return [
            line.split("  density")[0]
            for line in self.told()
            if re.search(r"\d s$", line)
        ]


def contents(folder):
    """What a run keeps, but for the time it took.

    In checkpoints Keras numbers layers by process.
    """
    found = {}
    for path in sorted(folder.glob("replicate_*/level_*/*/*")):
        name = str(path.relative_to(folder))
        found[name] = path.read_bytes()
        if path.name == "record.json":
            found[name] = json.loads(found[name])
            del found[name]["row"]["seconds"]
    with (folder / "results.csv").open() as file:
        found["results.csv"] = list(csv.DictReader(file))
    for row in found["results.csv"]:
        del row["seconds"]
    return found
