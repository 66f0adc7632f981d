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
    chosen = plan.choose_executor(toy.trainer(), steps, independent, workers)
    assert chosen == expected


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
