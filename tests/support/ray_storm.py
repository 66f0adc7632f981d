"""A storm over a run on a Ray cluster: `python tests/support/ray_storm.py N`.

N times, in turn, a worker is killed, a node is lost and another one joins, or
the command itself is killed and started again. The files of the run are
compared with those of a run of this machine's own processes.
"""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import run_processes

SETTINGS = {**run_processes.TINY, "length": "6000it", "evaluate_every": 100}


class Driver:
    """The command that trains the run; it starts as often as it is killed."""

    def __init__(self, address, folder):
        self._arguments = [address, json.dumps(SETTINGS), str(folder)]
        self.folder = folder
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--driver", *self._arguments]
        )

    def restart(self):
        self._process.kill()
        self._process.wait()
        self.start()

    def has_ended(self):
        return self._process.poll() is not None

    def wait(self):
        assert self._process.wait() == 0

    def files(self):
        """Names and times of the files that have been written so far."""
        return {
            (path, path.stat().st_mtime_ns)
            for path in list(self.folder.glob("replicate_*/**/*"))
            if path.exists()
        }


def storm(count, folder):
    """Runs a storm of so many events; raises if the files differ."""
    from ray import cluster_utils

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    driver = Driver(cluster.address, folder / "storm")
    events = {
        "a worker is killed": lambda: kill_worker(cluster),
        "the command is killed": driver.restart,
        "a node is lost": lambda: replace_node(cluster),
    }
    try:
        for name in itertools.islice(itertools.cycle(events), count):
            before = driver.files()
            while driver.files() <= before and not driver.has_ended():
                time.sleep(0.1)
            print(name, len(driver.files()), flush=True)
            events[name]()
        driver.wait()
    finally:
        cluster.shutdown()
    compare(folder)


def kill_worker(cluster):
    """Kills a worker that a node of the cluster has started, if there is one.

    Ray names its processes after what they run.
    """
    parents = {
        f"{node.all_processes['raylet'][0].process.pid}"
        for node in cluster.worker_nodes
    }
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # It has ended.
        if name.startswith(b"ray::RayWorker") and parent in parents:
            os.kill(int(folder.name), 9)
            return


def replace_node(cluster):
    """Removes a node as a machine fails, and adds another one."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    cluster.add_node(num_cpus=1)


def compare(folder):
    """Trains the run on this machine too, and compares the files."""
    from tf_lottery import experiment

    config = experiment.Config().replace(SETTINGS)
    experiment.run_experiment(
        config, folder / "calm", "lenet_mnist", verbose=False, workers=2
    )
    calm = run_processes.contents(folder / "calm")
    assert run_processes.contents(folder / "storm") == calm
    print(f"{len(calm)} files are equal.")


def drive(address, settings, folder):
    """Trains a run, with a checkpoint after every evaluation."""
    import ray_builds

    from tf_lottery import experiment
    from tf_lottery.experiment import runner

    runner.build_trainer = ray_builds.build_trainer
    config = experiment.Config().replace(json.loads(settings))
    experiment.run_experiment(config, folder, "lenet_mnist", cluster=address)


if __name__ == "__main__":
    if sys.argv[1] == "--driver":
        drive(*sys.argv[2:])
    else:
        with tempfile.TemporaryDirectory() as name:
            storm(int(sys.argv[1]), pathlib.Path(name))
