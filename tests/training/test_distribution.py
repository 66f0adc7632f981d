"""Tests that spreading training over devices and hosts changes nothing.

K37 to K39 of the conformance cases. Devices are virtual: `replicas.py` divides
the CPU, `worker.py` is one of two processes that know each other by TF_CONFIG.
"""

import dataclasses
import json
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import replicas
import tensorflow as tf
import toy

from tf_lottery import experiment
from tf_lottery.core.masks import Masks
from tf_lottery.data import augmentation
from tf_lottery.runs.executors import multi_worker
from tf_lottery.training import Job, State, compatibility, input_pipeline
from tf_lottery.training.distribution import replica_context, strategies
from tf_lottery.training.objective import Objective

pytestmark = pytest.mark.slow
SUPPORT = pathlib.Path(__file__).parents[1] / "support"


def environment(**more):
    places = [str(SUPPORT.parents[1]), str(SUPPORT), *sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **more}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "found"
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "replicas.py"), str(path)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads(path.read_bytes())


def require_alike(one, other, within):
    for a, b in zip(one["masks"], other["masks"], strict=True):
        assert a.keys() == b.keys()
        assert all((a[path] == b[path]).all() for path in a)
    for a, b in zip(one["curves"], other["curves"], strict=True):
        assert a.keys() == b.keys() != set()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], atol=within)
    require_close(one["trained"], other["trained"], within)


def require_close(some, others, within):
    assert some
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        for path in a:
            np.testing.assert_allclose(a[path], b[path], atol=within)


@pytest.mark.parametrize("devices", ["one device", "1", "2", "4"])
def test_tickets_are_those_of_one_device(found, devices):
    # BatchNorm, dropout, noise, a penalty, global clipping, late rewinding.
    require_alike(found["momentum"]["None"], found["momentum"][devices], 1e-5)


def test_averages_decay_and_accumulation_are_those_of_one_device(found):
    require_alike(found["averaged"]["None"], found["averaged"]["2"], 1e-5)


def test_a_mask_prunes_on_every_replica(found):
    result = found["momentum"]["4"]
    pruned = 0
    for masks, trained in zip(result["masks"], result["trained"], strict=True):
        for path, mask in masks.items():
            pruned += (~mask).sum()
            assert (trained[path][~mask] == 0).all()
    assert pruned > 0


def test_augmentation_is_that_of_the_whole_batch(found):
    require_close(*found["augmented"], within=1e-5)


@pytest.mark.parametrize("policy", replicas.HALF)
def test_a_step_in_half_precision_differs_by_its_rounding(found, policy):
    require_close(*found["half"][policy], within=3e-4)


@pytest.mark.parametrize("devices", [2, 4])
def test_wide_kernels_shared_and_nested_are_those_of_one_device(found, devices):
    runs, half = found["wide"]
    require_close(runs[None], runs[devices], within=1e-5)
    # Processors round half precision differently: 4.7e-4 on an AMD EPYC.
    require_close(*half, within=1e-3)


def test_several_networks_are_spread_and_none_is_changed(found):
    alone, spread = found["spread"]
    assert len(spread) == 3
    require_close(alone, spread, within=1e-6)


def test_a_training_goes_on_to_the_same_bytes(found):
    (whole,), (resumed,), kept = found["resumed"]
    assert kept == 1
    assert all((whole[path] == resumed[path]).all() for path in whole)


def test_replicas_that_disagree_are_found(found):
    assert "disagree on 'counted/seen'" in found["refusals"]["state"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("draws", "'lstm/lstm_cell' (LSTMCell) has weights and draws"),
        ("own draws", "(Noisy) has weights and draws"),
        ("added", "calls `add_loss`, which several devices cannot share"),
        ("penalty", "'dense' has an activity regularizer"),
        ("uncounted", "is not the mean of its examples' (some do not count"),
        ("batch", "30, which 4 replicas cannot share evenly. Take 28 or 32"),
    ],
)
def test_what_cannot_be_split_is_refused(found, name, said):
    assert said in found["refusals"][name]
    assert "\n" not in found["refusals"][name]


def test_a_sum_can_be_split(found):
    assert found["refusals"]["sum"] is None


def test_the_loop_of_a_tpu_compiles_whole(found):
    plain, compiled = found["tpu"]
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("kind", ["drawn", "augmented"])
def test_a_part_is_its_own_where_numbers_are_known_late(monkeypatch, kind):
    # As on a TPU, whose replicas run one program: XLA asks for shapes.
    whole = tf.reshape(tf.range(1.0, 6 * 4 * 4 + 1), [6, 4, 4, 1])
    dropout = keras.Sequential(
        [keras.Input((4, 4, 1)), replicas.L.Dropout(0.5)]
    )
    seed = [tf.constant([3, 0], tf.uint32)]
    flip = augmentation.Augmentation(flip=True, pad=1)

    def seen(model, x, number=0, count=1):
        if kind == "augmented":
            return augmentation.augment(x, [3, 0], flip, number, count)
        return model.stateless_call([], seed, x, training=True)[0]

    prepared = replica_context.synchronized_copy(dropout)

    @tf.function(jit_compile=True, autograph=False)
    def run(number):
        place = (number, 2)
        monkeypatch.setattr(replica_context, "replica_index", lambda: place)
        return seen(prepared, replica_context.local_shard(whole), number, 2)

    halves = [run(tf.constant(number)) for number in (0, 1)]
    expected = tf.function(jit_compile=True)(lambda: seen(dropout, whole))()
    np.testing.assert_array_equal(tf.concat(halves, 0), expected)
    assert (expected != whole).numpy().any()


def test_strategies_are_found_by_name(found):
    assert found["found"] == "MirroredStrategy, 4 replicas"
    one = strategies.get("one_device")
    assert strategies.described(one) == "OneDeviceStrategy, 1 replica"
    assert strategies.described(strategies.get("auto")) == "none"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("mirored", "", "Did you mean 'mirrored'?"),
        ("multi_worker", "", "set TF_CONFIG"),
        ("multi_worker", "{", "TF_CONFIG is no JSON"),
        (
            "multi_worker",
            '{"cluster": {"worker": ["a:1"], "evaluator": ["b:1"]}}',
            "TF_CONFIG names evaluator",
        ),
        ("tpu", "", "No TPU was found under the name 'local'"),
    ],
)
def test_a_strategy_that_cannot_be_had_is_one_line(
    monkeypatch, name, text, said
):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=".") as raised:
        strategies.get(name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_srun_names_the_workers(monkeypatch):
    for name, value in {
        "STEP_NUM_TASKS": "2",
        "STEP_NODELIST": "n[1-2]",
        "STEP_TASKS_PER_NODE": "1(x2)",
        "PROCID": "1",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    resolver = strategies.slurm()
    cluster = resolver.cluster_spec().as_dict()
    assert cluster == {"worker": ["n1:8888", "n2:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


def test_a_loss_that_knows_no_replicas_is_refused():
    class Own(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return tf.reduce_mean(y_pred)

    class Two:
        num_replicas_in_sync = 2

    recipe = dataclasses.replace(replicas.recipe(), loss=Own())
    sample = input_pipeline.examples_of(toy.dataset().train.rows(slice(0, 2)))
    objective = Objective(toy.mlp(), recipe, sample)
    with pytest.raises(ValueError, match="Own overrides `__call__`"):
        compatibility.require_shardable(toy.mlp(), recipe, objective, Two())


def test_a_step_of_its_own_is_not_split():
    class Mine(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    made = Mine(toy.mlp().layers)
    made.build((None, 6, 6, 1))
    strategy = strategies.get("one_device")
    with pytest.raises(ValueError, match="Mine overrides `train_step`"):
        replicas.trainer(strategy, made=made)


# --- Two workers -----------------------------------------------------------


def start(folder):
    """Starts two workers; returns them, the chief first."""
    ports = []
    for _ in range(2):
        with socket.socket() as place:
            place.bind(("localhost", 0))
            ports.append(place.getsockname()[1])
    addresses = [f"localhost:{port}" for port in ports]
    workers = []
    for index in range(2):
        config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, str(SUPPORT / "worker.py"), str(folder)],
                env=environment(TF_CONFIG=json.dumps(config)),
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def test_two_workers_one_dies_and_the_same_command_goes_on(tmp_path):
    chief, other = start(tmp_path)
    # Wait until the first level is under way.
    ends = time.monotonic() + 300
    level = tmp_path / "run" / "replicate_0" / "level_1"
    while not list(level.glob("**/*_*")):
        assert chief.poll() is None, chief.stderr.read()
        assert time.monotonic() < ends
        time.sleep(0.05)
    other.send_signal(signal.SIGKILL)
    _, said = chief.communicate(timeout=60)
    assert chief.returncode == 1
    assert said.strip().splitlines()[-1].startswith("A worker was lost")
    other.communicate()
    # What is done is not done again, and what was under way goes on.
    dense = (
        tmp_path / "run" / "replicate_0" / "level_0" / "ticket" / "record.json"
    )
    before = dense.read_bytes()
    multi_worker = start(tmp_path)
    for worker in multi_worker:
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    assert dense.read_bytes() == before
    runs = experiment.members(tmp_path / "s").values()
    assert [len(run.records()) for run in runs] == [3, 3]
    assert not (tmp_path / "none").exists()
    # All workers come to the same end, and those of a sweep to the next run.
    high = experiment.members(tmp_path / "high").values()
    assert sorted(len(run.records()) for run in high) == [0, 1]
    one = replicas.outcome(
        replicas.search(replicas.momentum, None, length="240it")
    )
    for name in ("chief", "other"):
        together, said = pickle.loads((tmp_path / name).read_bytes())
        assert "holds a sweep under another setting of batch_size" in said
        assert "Lower the learning rate, or clip gradients." in said
        require_alike(one, together, 1e-3)
        # Before 60 steps have made more of the rounding:
        for a, b in zip(one["curves"], together["curves"], strict=True):
            for curve in a:
                np.testing.assert_allclose(
                    a[curve][:3], b[curve][:3], atol=1e-5
                )


class Interrupted:
    """A trainer that ends as it is told."""

    strategy = None

    def __init__(self, error):
        self.error = error

    def train(self, jobs, progress):
        progress(0, 20, {})
        raise self.error


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("before", KeyboardInterrupt(), "The chief ended: KeyboardInterrupt."),
        ("before", ValueError("Another run."), "Another run."),
        ("training", ValueError("The loss is nan."), "The loss is nan."),
        ("training", KeyboardInterrupt(), None),
        ("training", OSError("No space left."), None),
        ("progress", KeyboardInterrupt(), None),
        ("progress", ValueError("Of a callback."), None),
    ],
)
def test_a_chief_says_nothing_while_the_others_train(
    monkeypatch, where, error, said
):
    # What it says is a sum, and so is what they are at: both would break.
    heard = []
    monkeypatch.setattr(multi_worker, "_Broadcast", lambda _: heard.append)
    job = Job(State(0, {}, {}), Masks({"k": np.ones(1, bool)}), 0)

    def progress(*_):
        if where == "progress":
            raise error

    def work():
        with multi_worker.MultiWorkerExecutor(Interrupted(error), {}) as chief:
            if where == "before":
                raise error
            chief.submit(job)
            chief.wait(progress)

    with pytest.raises(type(error)):
        work()
    ends = [message for kind, *message in heard if kind in ("end", "error")]
    assert ends == ([[said]] if said else [])


def test_without_a_strategy_this_process_is_the_chief():
    assert strategies.is_chief(None)
    assert not strategies.has_workers(None)
