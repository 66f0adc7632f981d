"""Networks trained side by side, resumed, or elsewhere are the same."""

import dataclasses
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from sample_tickets import jobs

from tf_lottery import masking
from tf_lottery.data import augmentation
from tf_lottery.lottery import rewinding
from tf_lottery.runs.executors import InProcessExecutor, ProcessPool
from tf_lottery.training import Job, Trainer, loop, plan, resume
from tf_lottery.training.backends import sparse

LAYERS = keras.layers


def attention():
    inputs = keras.Input((6, 6, 1))
    x = LAYERS.Reshape((6, 6))(inputs)
    x = LAYERS.LayerNormalization()(LAYERS.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(inputs, LAYERS.Dense(3)(LAYERS.Flatten()(x)))


def recurrent():
    inputs = keras.Input((6, 6, 1))
    x = LAYERS.LSTM(8)(LAYERS.Reshape((6, 6))(inputs))
    return keras.Model(inputs, LAYERS.Dense(3)(x))


MODELS = {
    "dense": (toy.mlp, "vectorised"),
    "dropout": (lambda: toy.mlp(dropout=0.3), "unrolled"),
    "convolution": (toy.convnet, "unrolled"),
    "attention": (attention, "vectorised"),
    "recurrent": (recurrent, "vectorised"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_network_in_a_stack_is_the_network_alone(name):
    build, stacking = MODELS[name]
    # Not Adam, which makes steps of the rounding errors of zero gradients.
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    trainer = toy.trainer(build(), optimizer=optimizer, length="100it")
    together = jobs(trainer)
    found, reason = trainer.stacking(3)
    assert found == stacking
    assert reason
    stacked = trainer.train(together)
    for job, run in zip(together, stacked, strict=True):
        alone = trainer.train([job])[0]
        for path, value in alone.trained.items():
            np.testing.assert_allclose(run.trained[path], value, atol=1e-6)
        for path, mask in job.masks.items():
            assert (run.trained[path][~mask] == 0).all()
    kernels = [run.trained[next(iter(together[0].masks))] for run in stacked]
    assert not np.allclose(kernels[0], kernels[1])


def test_an_unstackable_model_says_why():
    found, reason = toy.trainer(toy.convnet()).stacking(2)
    assert found == "unrolled"
    assert "Conv2D" in reason


@pytest.mark.slow
def test_networks_that_start_at_different_steps_train_too():
    trainer = toy.trainer()
    early = jobs(trainer, 1)[0]
    run = trainer.train([Job(early.start, early.masks, capture=(20,))])[0]
    late = Job(run.captured[0], early.masks)
    first, second = trainer.train([early, late])
    for path, value in first.trained.items():
        np.testing.assert_allclose(second.trained[path], value, atol=1e-6)


@pytest.mark.slow
def test_too_little_memory_shrinks_the_stack(monkeypatch, caplog):
    trainer = toy.trainer()
    real = loop.TrainingLoop.advance

    def advance(self, *args):
        if len(self.logs) > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return real(self, *args)

    monkeypatch.setattr(loop.TrainingLoop, "advance", advance)
    made = jobs(trainer, 4)
    runs = trainer.train(made)
    assert "4 networks do not fit into memory together" in caplog.text
    monkeypatch.undo()
    for job, run in zip(made, runs, strict=True):
        alone = trainer.train([job])[0]
        for path, value in alone.trained.items():
            np.testing.assert_allclose(run.trained[path], value, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", toy.OPTIMIZERS)
def test_every_step_is_the_step_that_keras_takes(name):
    trainer = toy.trainer(optimizer=toy.OPTIMIZERS[name](), length="1ep")
    reference = toy.mlp()
    reference.compile(toy.OPTIMIZERS[name](), toy.loss())
    train = trainer.data.train
    for batch in toy.batches(0, 0, len(train), 20):
        reference.train_on_batch(train.x[batch], train.y[batch])
    start = trainer.state
    run = toy.train(trainer, start, masking.get_masks(trainer.model))
    for path, variable in masking.variables_by_path(reference).items():
        np.testing.assert_allclose(
            run.trained[path], variable.numpy(), rtol=1e-3, atol=5e-5
        )
        assert (run.trained[path] != start.weights[path]).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", toy.OPTIMIZERS)
def test_pruned_weights_stay_zero_under_every_optimizer(name):
    trainer = toy.trainer(optimizer=toy.OPTIMIZERS[name](), length="12it")
    together = jobs(trainer, 2)
    for job, run in zip(together, trainer.train(together), strict=True):
        for path, mask in job.masks.items():
            assert (run.trained[path][~mask] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns(policy):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            LAYERS.Flatten(),
            LAYERS.Dense(16, "relu", dtype=policy),
            LAYERS.Dense(3, dtype="float32"),
        ]
    )
    trainer = toy.trainer(model, length="200it")
    run = toy.train(trainer, trainer.state, masking.get_masks(model))
    assert run.metrics["train_accuracy"] > 0.9
    slots = trainer.network.slots
    assert ("dynamic_scale" in slots) == (policy == "mixed_float16")


def test_an_overflow_skips_the_step_and_halves_the_scale():
    def steep(y, outputs):
        losses = keras.losses.sparse_categorical_crossentropy
        return 1e4 * losses(y, outputs, from_logits=True)

    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.05), initial_scale=3e38
    )
    recipe = dataclasses.replace(toy.recipe("1it", optimizer), loss=steep)
    model = toy.mlp()
    trainer = Trainer(
        model, recipe, toy.dataset(), tuple(masking.kernels(model))
    )
    start = trainer.state
    ones = masking.get_masks(trainer.model)
    run = toy.train(trainer, start, ones, capture=1)
    assert toy.same(run.trained, start.weights)
    assert run.captured[0].slots["dynamic_scale"] == np.float32(1.5e38)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "dropout", "convolution"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_resumed_network_is_the_uninterrupted_one(
    name, count, tmp_path, monkeypatch
):
    build, _ = MODELS[name]
    optimizer = toy.OPTIMIZERS["averaging"]
    trainer = toy.trainer(build(), optimizer=optimizer())
    plain = jobs(trainer, count)
    whole = trainer.train(plain)
    made = [
        Job(job.start, job.masks, job.seed, (10, 20), tmp_path / str(i))
        for i, job in enumerate(plain)
    ]
    toy.killed(trainer, made, monkeypatch, at=40)
    steps = []
    other = toy.trainer(build(), optimizer=optimizer())
    rest = other.train(made, lambda _, step, __: steps.append(step))
    assert steps[0] == 30
    for one, two in zip(whole, rest, strict=True):
        assert toy.same(one.trained, two.trained)
        assert one.curve == two.curve
        assert [state.step for state in two.captured] == [10, 20]
        for key, value in one.metrics.items():
            assert key == "seconds" or value == two.metrics[key]
        for split, right in one.per_example.items():
            assert np.array_equal(right, two.per_example[split])


def test_at_most_two_files_are_kept(tmp_path, monkeypatch):
    trainer = toy.trainer()
    job = jobs(trainer, 1)[0]
    made = [Job(job.start, job.masks, folder=tmp_path)]
    toy.killed(trainer, made, monkeypatch, at=60)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_of_damaged_files_the_older_good_one_is_used(
    tmp_path, monkeypatch, caplog
):
    trainer = toy.trainer()
    job = jobs(trainer, 1)[0]
    whole = trainer.train([job])[0]
    made = [Job(job.start, job.masks, folder=tmp_path)]
    toy.killed(trainer, made, monkeypatch, at=60)
    kept = {int(p.name.partition("_")[2]): p for p in tmp_path.iterdir()}
    before, last = sorted(kept)
    newest = kept[last]
    newest.write_bytes(newest.read_bytes()[:-100])
    steps = []
    rest = trainer.train(made, lambda _, step, __: steps.append(step))[0]
    assert steps[0] == before
    assert str(newest) in caplog.text
    assert newest.exists()
    assert toy.same(whole.trained, rest.trained)


@pytest.mark.slow
def test_files_of_another_job_are_named_and_left(tmp_path, monkeypatch, caplog):
    trainer = toy.trainer()
    one, two = jobs(trainer, 2)
    made = [Job(one.start, one.masks, folder=tmp_path)]
    toy.killed(trainer, made, monkeypatch, at=60)
    before = sorted(tmp_path.iterdir())
    steps = []
    with caplog.at_level(logging.WARNING):
        trainer.train(
            [Job(two.start, two.masks, folder=tmp_path)],
            lambda _, step, __: steps.append(step),
        )
    assert steps[0] == 0
    assert "another job" in caplog.text
    assert sorted(tmp_path.iterdir()) == before


# K31, with dropout.
@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_bytes(tmp_path):
    """Kills a real process, with dropout, at moments it does not choose."""
    script = tmp_path / "train.py"
    here = pathlib.Path(__file__).parents[1] / "support"
    script.write_text(
        f"""
import pathlib, pickle, sys
sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]
import toy
from tf_lottery import masking
from tf_lottery.training import Job, loop
loop.SECONDS_BETWEEN_CHECKPOINTS = 0
trainer = toy.trainer(toy.mlp(dropout=0.3), length="3000it")
masks = masking.get_masks(trainer.model)
folder = pathlib.Path(sys.argv[1])
(run,) = trainer.train(
    [Job(trainer.state, masks, 0, folder=folder)],
    lambda _, step, __: print(step, flush=True),
)
pathlib.Path(sys.argv[2]).write_bytes(pickle.dumps(run.trained))
"""
    )

    def launch(folder, result):
        command = [sys.executable, str(script), str(folder), str(result)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    whole = launch(tmp_path / "a", tmp_path / "whole")
    assert whole.communicate()
    assert whole.returncode == 0
    for moment in (300, 1500):
        process = launch(tmp_path / "b", tmp_path / "resumed")
        for line in process.stdout:
            if int(line) >= moment:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    process = launch(tmp_path / "b", tmp_path / "resumed")
    first = int(process.stdout.readline())
    process.communicate()
    assert first > 1000
    results = [
        pickle.loads((tmp_path / name).read_bytes())
        for name in ("whole", "resumed")
    ]
    assert toy.same(*results)


@pytest.mark.slow
def test_processes_train_what_this_process_would():
    trainer = toy.trainer()
    made = jobs(trainer, 3)
    told = []
    with ProcessPool(toy.trainer, 2) as executor:
        done = {}
        waiting = list(made)
        while len(done) < len(made):
            while executor.free_slots(len(waiting)):
                executor.submit(waiting.pop(0))
            done |= dict(executor.wait(lambda job, *_: told.append(job)))
    assert set(done) == set(made) == set(told)
    for job in made:
        alone = trainer.train([job])[0]
        for path, value in alone.trained.items():
            found = done[job].trained[path]
            np.testing.assert_allclose(found, value, atol=1e-6)


@pytest.mark.slow
def test_an_error_in_a_process_is_raised_here():
    trainer = toy.trainer()
    (job,) = jobs(trainer, 1)
    broken = Job(trainer.initial(trainer.model, 0), job.masks)
    with ProcessPool(toy.trainer, 1) as executor:
        executor.submit(broken)
        with pytest.raises(ValueError, match="Rewind first"):
            executor.wait(lambda *_: None)


def long_trainer():
    return toy.trainer(length="100000it")


@pytest.mark.slow
def test_a_process_that_dies_is_named():
    trainer = toy.trainer()
    (job,) = jobs(trainer, 1)
    with ProcessPool(long_trainer, 1) as executor:
        executor.submit(job)

        def kill(*_):
            os.kill(executor._workers[0]._process.pid, signal.SIGKILL)

        with pytest.raises(ValueError, match="status -9.*goes on from here"):
            executor.wait(kill)


def test_here_takes_one_on_a_cpu_and_a_stack_where_told():
    trainer = toy.trainer(length="10it")
    for stack, expected in ((None, 1), (2, 2), (9, 3)):
        executor = InProcessExecutor(trainer, stack)
        assert executor.free_slots(3) == expected


@pytest.mark.slow
def test_test_data_is_evaluated_when_asked_for_only():
    rows = {}
    metrics = {}
    for often in (False, True):
        trainer = toy.trainer(test_curve=often)
        run = toy.train(
            trainer, trainer.state, masking.get_masks(trainer.model)
        )
        rows[often], metrics[often] = run.curve[-1], dict(run.metrics)
        metrics[often].pop("seconds")
    assert "test_accuracy" not in rows[False]
    assert "test_accuracy" in rows[True]
    assert metrics[False] == metrics[True]


@pytest.mark.slow
def test_interim_reads_what_it_wrote(tmp_path):
    trainer = toy.trainer(toy.mlp(dropout=0.2))
    masks = masking.get_masks(trainer.model)
    state = toy.train(trainer, trainer.state, masks, capture=7).captured[0]
    written = resume.InProgressCheckpoint(
        "f" * 64,
        state,
        None,
        (state,),
        [{"step": 5, "loss": 0.1}],
        [np.array(0.25), np.array([1.0, 2.0])],
        3.0,
    )
    resume.save(tmp_path, written)
    (read,) = resume.load_latest([(tmp_path, "f" * 64)])
    assert read.state.digest == read.captured[0].digest == state.digest
    assert read.best is None
    assert read.curve == written.curve
    for one, other in zip(read.totals, written.totals, strict=True):
        assert np.array_equal(one, other)


def test_a_trainer_leaves_the_model_alone():
    model = toy.mlp()
    trainer = Trainer(
        model, toy.recipe(), toy.dataset(), tuple(masking.kernels(model))
    )
    before = [w.numpy() for w in model.weights]
    trainer.train(jobs(trainer, 1))
    for one, other in zip(before, model.weights, strict=True):
        assert np.array_equal(one, other.numpy())


def sparse_job(trainer, folder=None, capture=()):
    masks = toy.random_masks(trainer.model, density=0.2)
    start = rewinding.rewind(trainer.initial(trainer.model, 0), masks)
    return Job(start, masks, capture=capture, folder=folder)


def test_survivors_alone_train_as_the_whole_network(monkeypatch):
    trainer = toy.trainer(length="100it")
    job = sparse_job(trainer, capture=(50,))
    assert plan.why_not_sparse(trainer, [job.masks]) is None
    alone = trainer.train([job])[0]
    monkeypatch.setattr(sparse, "BREAK_EVEN", 0.0)
    whole = trainer.train([job])[0]
    assert alone.curve != whole.curve  # or the same code ran twice
    for path, value in whole.trained.items():
        np.testing.assert_allclose(alone.trained[path], value, atol=1e-5)
    for name, value in whole.captured[0].slots.items():
        found = alone.captured[0].slots[name]
        np.testing.assert_allclose(found, value, atol=1e-5)
    assert alone.metrics["early_stop_step"] == whole.metrics["early_stop_step"]
    assert np.array_equal(alone.per_example["test"], whole.per_example["test"])


def test_survivors_alone_are_resumed_to_the_same_bytes(tmp_path, monkeypatch):
    trainer = toy.trainer()
    whole = trainer.train([sparse_job(trainer)])[0]
    job = sparse_job(trainer, tmp_path)
    toy.killed(trainer, [job], monkeypatch, at=40)
    steps = []
    rest = trainer.train([job], lambda _, step, __: steps.append(step))[0]
    assert steps[0] == 30
    assert toy.same(whole.trained, rest.trained)
    assert whole.curve == rest.curve
    assert np.array_equal(whole.per_example["test"], rest.per_example["test"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "settings", "reason"),
    [
        (
            toy.mlp,
            {"metrics": ("sparse_top_k_categorical_accuracy",)},
            "metric",
        ),
        (toy.convnet, {}, "Conv2D"),
        (lambda: toy.mlp(dropout=0.2), {}, "Dropout"),
        (toy.mlp, {"optimizer": keras.optimizers.Lion(1e-3)}, "Lion"),
    ],
)
def test_what_trains_densely_says_why(build, settings, reason):
    trainer = toy.trainer(build(), **settings)
    job = sparse_job(trainer)
    assert reason in plan.why_not_sparse(trainer, [job.masks])
    ones = {path: np.ones_like(mask) for path, mask in job.masks.items()}
    if build is toy.mlp and not settings:
        assert "more than 35 %" in plan.why_not_sparse(trainer, [ones])
    trainer.train([job])


@pytest.mark.slow
def test_augmentation_is_a_function_of_seed_and_step():
    images = dataclasses.replace(
        toy.dataset(), augment=augmentation.Augmentation(flip=True, pad=1)
    )
    model = toy.mlp()
    kernels = tuple(masking.kernels(model))
    trainer = Trainer(model, toy.recipe(), images, kernels)
    job = jobs(trainer, 1)[0]
    whole = trainer.train([Job(job.start, job.masks, 1, capture=(30,))])[0]
    rest = trainer.train([Job(whole.captured[0], job.masks, 1)])[0]
    assert toy.same(whole.trained, rest.trained)
    plain = Trainer(model, toy.recipe(), toy.dataset(), kernels)
    other = plain.train([Job(job.start, job.masks, 1)])[0]
    assert not toy.same(whole.trained, other.trained)


@pytest.mark.slow
def test_a_killed_run_of_two_processes_ends_in_the_same_tickets(tmp_path):
    """The command itself, killed when networks end, against one left alone."""

    def launch(folder):
        return subprocess.Popen(
            [sys.executable, "-m", "tf_lottery", "run", "lenet_mnist"]
            + ["--replicates=2", "--levels=1", "--steps=60", "--workers=2"]
            + [f"--run_dir={folder}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = launch(whole)
    assert b"level  1" in process.communicate()[0]
    for lines in (1, 2):
        process = launch(killed)
        for line in process.stdout:
            lines -= b"early stop" in line
            if lines == 0:
                process.kill()
                break
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    assert launch(killed).communicate()
    names = sorted(
        path.relative_to(whole)
        for path in whole.rglob("*")
        if path.name in ("ticket", "trained") and path.is_file()
    )
    assert len(names) == 2 * 3 * 2  # replicates; dense, ticket, reinit; files
    for name in names:
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
