"""Data that do not fit train the same networks as data that do."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import tf_lottery as tfl
from tf_lottery import data, masking
from tf_lottery.data import augmentation
from tf_lottery.training import Job, Trainer, input_pipeline, plan
from tf_lottery.training.backends import sparse

STEP = 20 * 6 * 6 * 4  # bytes of the inputs of a batch; an epoch has 24


def trainer(model=None, augment=None, **settings):
    model = model or toy.mlp()
    dataset = dataclasses.replace(toy.dataset(), augment=augment)
    recipe = toy.recipe(**settings)
    return Trainer(model, recipe, dataset, tuple(masking.kernels(model)))


def jobs(made, count):
    ones = masking.get_masks(made.model)
    start = made.initial(made.model, 0)
    return [Job(start, ones, seed) for seed in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7, 24, 1000])
@pytest.mark.parametrize("count", [1, 2])
def test_streamed_is_in_memory(steps, count, monkeypatch):
    resident = trainer()
    expected = resident.train(jobs(resident, count))
    monkeypatch.setattr(input_pipeline, "RESIDENT", 1000)
    monkeypatch.setattr(input_pipeline, "WINDOW", steps * STEP)
    streamed = trainer()
    runs = streamed.train(jobs(streamed, count))
    for run, other in zip(runs, expected, strict=True):
        assert toy.same(run.trained, other.trained)
        # Losses are summed in float32 from one window to the next.
        for row, same in zip(run.curve, other.curve, strict=True):
            assert row == pytest.approx(same)
        assert np.array_equal(
            run.per_example["test"], other.per_example["test"]
        )


def test_streamed_images_are_augmented_as_in_memory(monkeypatch):
    flip = augmentation.get("flip")
    model = toy.convnet()
    runs = []
    for bytes_ in (input_pipeline.RESIDENT, 1000):
        monkeypatch.setattr(input_pipeline, "RESIDENT", bytes_)
        made = trainer(model, flip)
        runs += made.train(jobs(made, 1))
    one, other = runs
    # Kernels of TensorFlow's CPU may sum in another order where data lie
    # elsewhere in memory.
    for path, value in one.trained.items():
        np.testing.assert_allclose(other.trained[path], value, atol=1e-5)


def test_a_window_is_as_large_as_said(monkeypatch):
    monkeypatch.setattr(input_pipeline, "WINDOW", 7 * STEP)
    split = toy.dataset().train
    windows = input_pipeline.Streaming(
        split, input_pipeline.Batching(20)
    ).buffers([0], 30)
    firsts = [next(windows) for _ in range(4)]
    assert {len(window.examples.x) for window in firsts} == {7 * 20}
    assert [window.first for window in firsts] == [24, 31, 38, 41]


def test_what_streams_is_trained_densely(monkeypatch):
    made = trainer()
    masks = {
        path: np.zeros(mask.shape, bool)
        for path, mask in masking.get_masks(made.model).items()
    }
    monkeypatch.setattr(sparse, "BREAK_EVEN", 1)
    assert plan.why_not_sparse(made, [masks]) is None
    monkeypatch.setattr(input_pipeline, "RESIDENT", 1000)
    assert "stream" in plan.why_not_sparse(made, [masks])


def test_a_data_set_of_tensorflow_is_its_arrays():
    x, y = toy.digits(50)
    given = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    read = data.from_arrays(given, validation_data=given)
    assert read.digest == data.from_arrays(x, y, (x, y)).digest
    assert isinstance(read.train.x, np.memmap)
    assert read.classes == 3


@pytest.mark.slow
def test_fit_takes_a_data_set_of_tensorflow():
    found = []
    arrays = toy.digits()
    held_out = toy.digits(200, seed=2)
    for as_stream in (False, True):
        x, y, validation = *arrays, held_out
        if as_stream:
            x = tf.data.Dataset.from_tensor_slices(arrays).batch(20)
            y = None
            validation = tf.data.Dataset.from_tensor_slices(held_out).batch(9)
        search = tfl.TicketSearch(toy.mlp(), levels=1)
        search.compile(keras.optimizers.Adam(3e-3), toy.loss())
        size = None if as_stream else 20
        history = search.fit(
            x,
            y,
            size,
            length="30it",
            evaluate_every=10,
            validation_data=validation,
            verbose=False,
        )
        found.append(search.tickets[1])
        assert history.history["steps"] == [30, 30]
    assert toy.same(found[0].trained, found[1].trained)
    assert toy.same(dict(found[0].masks), dict(found[1].masks))


def broken():
    yield np.zeros((4, 2), "float32"), np.zeros(4, "int32")
    raise OSError("the disk is gone")


def ragged():
    yield np.zeros((4, 2), "float32"), np.zeros(4, "int32")
    yield np.zeros((4, 3), "float32"), np.zeros(4, "int32")


def generated(function):
    return tf.data.Dataset.from_generator(
        function,
        output_signature=(
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ),
    )


PAIR = np.zeros((8, 2), "float32"), np.zeros(8, "int32")


def slices(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


REFUSED = {
    "single": (lambda: slices(*PAIR), r"single examples.*batch\(\.\.\.\)"),
    "endless": (lambda: slices(*PAIR).batch(4).repeat(), "never ends"),
    "four parts": (lambda: slices(*PAIR, *PAIR).batch(4), "got 4 parts"),
    "broken": (lambda: generated(broken), "broke off after 1 batches"),
    "ragged": (lambda: generated(ragged), r"batch 1 of x .*\(3,\).*\(2,\)"),
    "empty": (lambda: slices(*PAIR).batch(4).take(0), "no examples"),
    "not finite": (
        lambda: slices(PAIR[0] / 0, PAIR[1]).batch(4),
        "nan or infinite",
    ),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_stream_of_examples_is_refused(given, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_arrays(given())
    assert "\n" not in str(error.value)


def test_batches_of_unequal_length_are_refused():
    def uneven():
        yield np.zeros((4, 2), "float32"), np.zeros(3, "int32")

    with pytest.raises(ValueError, match="4 for x, 3 for y"):
        data.from_arrays(generated(uneven))


def test_targets_beside_a_data_set_are_refused():
    with pytest.raises(ValueError, match="leave out `y`"):
        data.from_arrays(slices(*PAIR).batch(4), PAIR[1])
