"""The plan is what happens: the trainer builds the backend that it names."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_lottery import masking
from tf_lottery.lottery import rewinding
from tf_lottery.training import Job, Trainer, devices, plan
from tf_lottery.training.backends import custom_step, dense, sparse
from tf_lottery.training.backends.data_parallel import DataParallelPrograms

BACKENDS = {
    plan.SPARSE_CPU: sparse.SparseBackend,
    plan.DENSE: dense.DenseBackend,
    plan.CUSTOM_STEP: custom_step.CustomStepBackend,
}


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def own_step():
    return OwnStep([keras.Input((6, 6, 1)), *toy.mlp().layers])


def masks_of(trainer, density):
    return toy.random_masks(trainer.model, density)


def built(trainer, masks):
    states = [trainer.initial(trainer.model, 0)] * len(masks)
    starts = [
        rewinding.rewind(state, m)
        for state, m in zip(states, masks, strict=True)
    ]
    jobs = [Job(start, m) for start, m in zip(starts, masks, strict=True)]
    return trainer._backend(jobs, starts)


@pytest.mark.parametrize(
    ("build", "densities", "backend", "reason"),
    [
        (toy.mlp, [0.2], plan.SPARSE_CPU, "pruned weights"),
        (toy.mlp, [0.9], plan.DENSE, "more than 35 %"),
        (toy.mlp, [0.2, 0.2], plan.DENSE, "share one program"),
        (toy.convnet, [0.2], plan.DENSE, "Conv2D"),
        (own_step, [0.2], plan.CUSTOM_STEP, "step"),
    ],
)
def test_the_trainer_builds_the_backend_that_the_plan_names(
    build, densities, backend, reason
):
    trainer = toy.trainer(build())
    masks = [masks_of(trainer, density) for density in densities]
    choice = plan.choose_backend(trainer, masks)
    assert choice.backend == backend
    assert reason in choice.reason
    assert type(built(trainer, masks)) is BACKENDS[backend]


@pytest.mark.parametrize(
    ("steps", "independent", "workers", "expected"),
    [
        (100, 10, None, (plan.IN_PROCESS, 1)),
        (10**6, 1, None, (plan.IN_PROCESS, 1)),
        (10**6, 3, None, (plan.PROCESS_POOL, 2)),
        (10**6, 3, 1, (plan.IN_PROCESS, 1)),
        (100, 1, 4, (plan.PROCESS_POOL, 4)),
    ],
)
def test_processes_are_chosen_where_they_pay(
    steps, independent, workers, expected, monkeypatch
):
    monkeypatch.setattr(devices, "cores", lambda: 2)
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    monkeypatch.setattr(devices, "available_memory", lambda: 10**11)
    chosen = plan.choose_executor(toy.trainer(), steps, independent, workers)
    assert chosen == expected


@pytest.mark.parametrize(
    ("available", "processes", "says"),
    [
        (5 * 10**9, 3, "3: 5.0 GB of memory are available, and a process"),
        (
            10**9,
            1,
            "1: 1.0 GB of memory are available, and a process takes 1.5",
        ),
        (10**11, 8, "8"),
        (None, 8, "8"),
    ],
)
def test_no_more_processes_start_than_fit_into_memory(
    available, processes, says, monkeypatch
):
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    monkeypatch.setattr(devices, "available_memory", lambda: available)
    trainer = toy.trainer(length="100000it")
    kind = plan.PROCESS_POOL if processes > 1 else plan.IN_PROCESS
    chosen = plan.choose_executor(trainer, 10**6, 9)
    assert chosen == (kind, processes)
    lines = plan.plan(trainer, networks=10, independent=9).lines()
    said = dict(line.split(None, 1) for line in lines)
    assert said["processes"].startswith(says)
    assert ("memory" in said["processes"]) == ("memory" in says)


def test_processes_of_a_larger_network_take_more_memory(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    monkeypatch.setattr(devices, "available_memory", lambda: 5 * 10**9)
    wide = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten()]
        + [keras.layers.Dense(n) for n in (2000, 2000, 10)]
    )
    chosen = plan.choose_executor(toy.trainer(wide), 10**6, 9)
    assert chosen == (plan.PROCESS_POOL, 2)


@pytest.fixture
def machine(tmp_path):
    """A root folder of a machine of 8 GB, outside of any control group."""
    for name, text in {
        "proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
        "proc/self/cgroup": "0::/\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def group(root, folder, **files):
    folder = root / "sys/fs/cgroup" / folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


def test_memory_is_what_the_machine_has_available(machine):
    assert devices.available_memory(machine) == 8_192_000_000
    group(machine, "", max="max\n", current="5\n")
    assert devices.available_memory(machine) == 8_192_000_000


def test_memory_is_less_in_a_control_group_or_one_that_holds_it(machine):
    (machine / "proc/self/cgroup").write_text("0::/slurm/job_1\n")
    stat = "anon 700\ninactive_file 300\n"
    group(machine, "slurm", max="4000", current="1000", stat=stat)
    assert devices.available_memory(machine) == 3300
    group(machine, "slurm/job_1", max="2000", current="1000", stat="")
    assert devices.available_memory(machine) == 1000


def test_memory_is_less_in_a_control_group_of_version_1(machine):
    text = "5:cpu:/\n4:memory:/docker/elsewhere\n0::/\n"
    (machine / "proc/self/cgroup").write_text(text)
    files = {"limit_in_bytes": "4000", "usage_in_bytes": "1000"}
    group(machine, "memory", **files, stat="total_inactive_file 50\n")
    assert devices.available_memory(machine) == 3050


def test_a_gpu_trains_all_networks_at_once_in_one_process(monkeypatch):
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    trainer = toy.trainer()
    assert plan.choose_executor(trainer, 10**6, 8) == (plan.IN_PROCESS, 1)
    assert plan.max_parallel_jobs(trainer) is None
    choice = plan.choose_backend(trainer, [masks_of(trainer, 0.2)])
    assert choice == plan.BackendChoice(plan.DENSE, "a GPU multiplies densely")


def test_one_network_under_a_strategy_is_trained_by_all_replicas():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    model = toy.mlp()
    trainer = Trainer(
        model, toy.recipe(), toy.dataset(), masking.kernels(model), strategy
    )
    masks = [masks_of(trainer, 0.2)]
    choice = plan.choose_backend(trainer, masks)
    assert choice.backend == plan.DATA_PARALLEL
    backend = built(trainer, masks)
    assert isinstance(backend._programs, DataParallelPrograms)
    assert plan.max_parallel_jobs(trainer) == 1
    apart = plan.choose_backend(trainer, masks, on_one_device=True)
    assert apart.reason == "the devices of a strategy multiply densely"
    two = plan.choose_backend(trainer, masks * 2)
    assert two.backend == plan.PER_DEVICE


def test_a_plan_is_printed_one_decision_a_line():
    lines = plan.plan(toy.trainer(), networks=3, independent=2).lines()
    said = dict(line.split(None, 1) for line in lines)
    assert said["networks"] == "3 of 60 steps each"
    assert said["dense"].startswith("dense: more than 35 %")
    assert said["stacks"].startswith("vectorised: ")
    assert np.unique([line[:11].rstrip() for line in lines]).size == len(lines)
