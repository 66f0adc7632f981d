import collections
import dataclasses
import hashlib
import pathlib

import numpy as np
import pytest

from tf_lottery import data
from tf_lottery.data import DATASETS, from_arrays, load_dataset

# MNIST.

# LeCun's figures: images of each digit, 0 to 9.
TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def mnist():
    return load_dataset("mnist")


@pytest.fixture(scope="module")
def file():
    path = pathlib.Path(data.__file__).parent / "mnist.npz"
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def splits(dataset):
    return {
        f.name: getattr(dataset, f.name)
        for f in dataclasses.fields(dataset)[:3]
    }


def examples(x, y):
    """Every image with its label, and how often it occurs."""
    return collections.Counter(
        (hashlib.sha256(image.tobytes()).digest(), int(label))
        for image, label in zip(x, y, strict=True)
    )


def test_mnist_has_the_papers_sizes(mnist):
    sizes = {name: len(split) for name, split in splits(mnist).items()}
    assert sizes == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert mnist.classes == 10


def test_mnist_pixels_and_labels_are_of_the_stated_kind(mnist):
    for split in splits(mnist).values():
        assert split.x.dtype == np.float32
        assert split.x.shape == (len(split.y), 28, 28, 1)
        assert (split.x.min(), split.x.max()) == (0, 1)
        assert split.y.dtype == np.int32
        assert set(np.unique(split.y)) == set(range(10))


def test_mnist_is_the_mnist_of_lecun(mnist):
    counts = {n: np.bincount(s.y) for n, s in splits(mnist).items()}
    assert (counts["train"] + counts["validation"]).tolist() == TRAIN
    assert counts["test"].tolist() == TEST
    # The well-known mean and deviation of the training images.
    x = np.concatenate([mnist.train.x, mnist.validation.x])
    assert x.mean(dtype="float64") == pytest.approx(0.1307, abs=1e-4)
    assert x.std(dtype="float64") == pytest.approx(0.3081, abs=1e-4)


def test_mnist_splits_share_no_example_and_miss_none(mnist, file):
    def counted(split):
        bytes_ = np.round(split.x[..., 0] * 255).astype("uint8")
        assert np.array_equal(bytes_.astype("float32") / 255, split.x[..., 0])
        return examples(bytes_, split.y)

    whole = examples(file["x_train"], file["y_train"])
    # With multiplicity: an image that occurs twice is two examples.
    assert counted(mnist.train) + counted(mnist.validation) == whole
    assert counted(mnist.test) == examples(file["x_test"], file["y_test"])


def test_mnist_validation_is_drawn_at_random(mnist):
    # 500 of each digit are expected, 21 is one standard deviation.
    share = np.bincount(mnist.validation.y) / (np.array(TRAIN) / 12)
    assert np.abs(share - 1).max() < 0.2
    assert len(set(mnist.validation.y[:30].tolist())) > 5


def test_mnist_is_always_the_same(mnist):
    assert mnist.digest == (
        "8173e8fe2e87b3332b7fe70b16060cc1f17b8f5f2c996f72ead8d11ca59fb898"
    )


def test_an_unknown_data_set_lists_the_known():
    with pytest.raises(
        ValueError, match="Unknown data set 'mnits'. Did you me"
    ):
        load_dataset("mnits")


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_float_images_and_labels(name):
    dataset = load_dataset(name)
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.y.max() + 1 == dataset.classes


# Arrays of the user's.

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 2, 1, 0])


def test_arrays_become_splits():
    dataset = from_arrays(X, Y, (X[:2], Y[:2]), (X[:1], Y[:1]))
    sizes = {name: len(split) for name, split in splits(dataset).items()}
    assert sizes == {"train": 4, "validation": 2, "test": 1}
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.y.dtype == np.int32
    assert dataset.classes == 3
    assert np.array_equal(dataset.train.x, X)
    assert np.array_equal(dataset.train.y, Y)


def test_validation_and_test_data_may_be_missing():
    dataset = from_arrays(X.tolist(), Y.tolist())
    assert dataset.validation is dataset.test is None
    assert dataset.digest == from_arrays(X, Y).digest


@pytest.mark.parametrize(
    ("y", "dtype", "shape", "classes"),
    [
        (Y.astype("uint8"), "int32", (4,), 3),
        (Y[:, None], "int32", (4,), 3),
        (Y > 0, "int32", (4,), 2),
        (np.eye(3, dtype="int64")[Y], "int32", (4, 3), None),
        (np.eye(3)[Y], "float32", (4, 3), None),
        (Y / 2, "float32", (4,), None),
        (Y[:, None] / 2, "float32", (4, 1), None),
    ],
)
def test_targets_are_labels_or_floats(y, dtype, shape, classes):
    dataset = from_arrays(X, y)
    assert dataset.train.y.dtype == dtype
    assert dataset.train.y.shape == shape
    assert dataset.classes == classes


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
def test_integer_inputs_stay_integers(dtype):
    assert from_arrays(X.astype(dtype), Y).train.x.dtype == dtype


def test_digests_are_equal_exactly_where_the_data_are():
    def digest(x=X, y=Y, **more):
        return from_arrays(x, y, **more).digest

    digests = [
        digest(),
        digest(x=X + 1),
        digest(y=Y[::-1]),
        digest(x=X[::-1]),
        digest(x=X[:, None]),
        digest(x=X.astype("int32")),
        digest(validation_data=(X, Y)),
    ]
    assert len(set(digests)) == len(digests)
    assert digest() == digest(x=np.asfortranarray(X), y=Y.astype("uint8"))


def test_a_split_cannot_be_changed():
    split = from_arrays(X, Y).train
    with pytest.raises(dataclasses.FrozenInstanceError):
        split.x = X


NAN, INF = (np.where(X == 5, bad, X) for bad in (np.nan, -np.inf))
BAD = {
    "nan": (NAN, Y, "inputs of NAME hold 1 nan or infinite"),
    "infinity": (INF, Y, "inputs of NAME hold 1 nan or infinite"),
    "nan target": (X, NAN[:, 2], "targets of NAME hold 1 nan or infinite"),
    "lengths": (X, Y[:3], r"NAME holds 4 inputs but targets of shape \(3,\)"),
    "a target for all": (X, 3, "each input needs one target"),
    "empty": (X[:0], Y[:0], "NAME holds no examples"),
    "scalar": (3.0, Y, "NAME holds no examples"),
    "nothing": (None, Y, "NAME must hold numbers"),
    "string inputs": ([["a"] * 3] * 4, Y, "NAME must hold numbers; got an ar"),
    "string labels": (X, list("abcd"), "NAME must hold numbers; got an array"),
    "objects": (X, [None] * 4, "NAME must hold numbers; got an array of obj"),
    "complex": (X * 1j, Y, "NAME must hold numbers; got an array of complex"),
    "negative labels": (X, Y - 1, "Labels of NAME must be 0 or more; got -1"),
    "labels beyond int32": (X, Y + 2**32, "abels of NAME"),
}


@pytest.mark.parametrize("name", ["x, y", "validation_data", "test_data"])
@pytest.mark.parametrize(("x", "y", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_refused_by_the_name_of_their_split(name, x, y, message):
    given = {"x": X, "y": Y}
    given |= {"x": x, "y": y} if name == "x, y" else {name: (x, y)}
    with pytest.raises(ValueError, match=message.replace("NAME", name)):
        from_arrays(**given)


@pytest.mark.parametrize("name", ["validation_data", "test_data"])
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            (X[:, :2], Y),
            r"have shape \(2,\) an example.*those of x have \(3,\)",
        ),
        ((X[..., None], Y), r"have shape \(3, 1\) an example"),
        ((X[:, 0], Y), r"have shape \(\) an example"),
        (X, "NAME must be a pair"),
        ((X, Y, Y), "NAME must be a pair"),
        ({"x": X, "y": Y}, r"must be a pair \(x, y\); got dict"),
    ],
    ids=["fewer features", "more axes", "vectors", "array", "triple", "dict"],
)
def test_splits_of_another_form_are_refused(name, pair, message):
    with pytest.raises(ValueError, match=message.replace("NAME", name)):
        from_arrays(X, Y, **{name: pair})


def test_floats_beyond_float32_are_refused_without_a_warning():
    with pytest.raises(ValueError, match="hold 12 nan or infinite"):
        from_arrays(np.full((4, 3), 1e300), Y)


def test_ragged_inputs_are_refused_by_the_name_of_their_split():
    with pytest.raises(ValueError, match="validation_data"):
        from_arrays(X, Y, validation_data=([[1.0], [2.0, 3.0]], [0, 1]))


@pytest.mark.parametrize("y", [Y / 2, np.eye(3, dtype=int)[Y]])
def test_targets_of_another_form_than_in_training_are_refused(y):
    with pytest.raises(ValueError, match="validation_data"):
        from_arrays(X, Y, validation_data=(X, y))
