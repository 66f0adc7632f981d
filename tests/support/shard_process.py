"""A process that runs experiments: each line of its input names one."""

import json
import os
import signal
import sys

from tf_lottery import experiment
from tf_lottery.core.storage import leases, object_store
from tf_lottery.training import loop, resume


def main():
    loop.SECONDS_BETWEEN_CHECKPOINTS = object_store.REST_FACTOR = 0
    leases._BucketStore.poll_interval = 0.1
    real_save, real_load = resume.save, resume.load_latest
    freeze_at = None

    def save(folder, checkpoint):
        real_save(folder, checkpoint)
        if checkpoint.state.step == freeze_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    def load_latest(jobs):
        checkpoints = real_load(jobs)
        for checkpoint in checkpoints:
            print(f"resumes at step {checkpoint.state.step}", flush=True)
        return checkpoints

    resume.save, resume.load_latest = save, load_latest
    print("ready", flush=True)
    for line in sys.stdin:
        settings, folder, freeze_at = json.loads(line)
        configs = experiment.expand(experiment.Config(), settings)
        if "" in configs:
            experiment.run_experiment(configs[""], folder, "lenet_mnist")
        else:
            experiment.run_sweep(configs, folder, "lenet_mnist")
        print("ended", flush=True)


if __name__ == "__main__":
    main()
