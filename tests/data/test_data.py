import collections
import dataclasses
import hashlib
import http.server
import logging
import pathlib
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tfds_copies import LABEL, draw, prepare_small_copy, prepare_toys

from tf_lottery import data
from tf_lottery.data import (
    AUGMENTATIONS,
    DATASETS,
    catalogue,
    from_arrays,
    load_dataset,
)

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


def sizes(dataset):
    return {n: len(s) for n, s in splits(dataset).items() if s is not None}


def examples(x, y):
    """Every image with its label, and how often it occurs."""
    return collections.Counter(
        (hashlib.sha256(image.tobytes()).digest(), int(label))
        for image, label in zip(x, y, strict=True)
    )


def test_mnist_has_the_papers_sizes(mnist):
    assert sizes(mnist) == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
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


# TensorFlow Datasets. Each set is written by the test, by TFDS's own builders.


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder as after downloads, with small copies of all of `DATASETS`."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    for name in set(DATASETS) - {"mnist"}:
        prepare_small_copy(name, folder)
    return folder


@pytest.fixture
def offline(monkeypatch):
    """A machine without a network: whatever asks for one is turned away."""
    for scheme in ("http", "https"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_float_images_and_labels(name, data_dir):
    dataset = load_dataset(name, data_dir)
    for split in splits(dataset).values():
        assert split.x.dtype == np.float32
        assert split.x.ndim == 4
        assert split.y.dtype == np.int32
        assert split.y.shape == (len(split.x),)
        assert 0 <= split.y.min()
        assert split.y.max() < dataset.classes
    assert dataset.augment is None


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("mnist", (28, 28, 1), 10),
        ("fashion_mnist", (28, 28, 1), 10),
        ("cifar10", (32, 32, 3), 10),
        ("cifar100", (32, 32, 3), 100),
    ],
)
def test_known_data_sets_are_of_their_known_form(
    name, shape, classes, data_dir
):
    dataset = load_dataset(name, data_dir)
    assert dataset.train.x.shape[1:] == shape
    assert dataset.classes == classes


def pixels(split):
    """The bytes that scaling to [0, 1] came from."""
    found = np.round(split.x * 255).astype("uint8")
    assert np.array_equal(found.astype("float32") / np.float32(255), split.x)
    return found


def test_a_tenth_is_held_out_and_no_example_is_lost(tmp_path):
    whole = prepare_toys(tmp_path)
    dataset = load_dataset("toys", tmp_path)
    assert sizes(dataset) == {"train": 36, "validation": 4, "test": 7}
    assert dataset.classes == 5
    train, validation, test = (
        examples(pixels(split), split.y) for split in splits(dataset).values()
    )
    assert train + validation == examples(*whole["train"])
    assert test == examples(*whole["test"])


def test_a_prepared_set_is_always_the_same(tmp_path):
    prepare_toys(tmp_path)
    first, again = (load_dataset("toys", tmp_path) for _ in range(2))
    assert first.digest == again.digest


def test_at_most_5000_are_held_out_drawn_at_random():
    x, y = draw(51_000, shape=(1, 1, 3))
    parts = data.tfds._held_out("toys", x, y)
    assert len(parts["train"][0]) == 46_000
    assert len(parts["validation"][0]) == 5_000
    # 1,000 of each class are expected, 27 is one standard deviation.
    assert np.abs(np.bincount(parts["validation"][1]) - 1_000).max() < 135


def test_which_examples_are_held_out_never_changes():
    rows = np.arange(50_000)
    held_out, _ = data.tfds._held_out("cifar10", rows, rows)["validation"]
    assert held_out[:5].tolist() == [0, 10, 12, 14, 17]


def test_the_sets_own_validation_split_is_used(tmp_path):
    whole = prepare_toys(
        tmp_path, {"train": draw(40), "validation": draw(6), "test": draw(7)}
    )
    dataset = load_dataset("toys", tmp_path)
    assert sizes(dataset) == {"train": 40, "validation": 6, "test": 7}
    found = examples(pixels(dataset.validation), dataset.validation.y)
    assert found == examples(*whole["validation"])


def test_a_set_may_have_no_test_split_and_too_few_to_hold_out(tmp_path):
    prepare_toys(tmp_path, {"train": draw(9)})
    assert sizes(load_dataset("toys", tmp_path)) == {"train": 9}


def test_images_of_one_size_may_leave_it_undeclared(tmp_path):
    any_size = tfds.features.Image(shape=(None, None, 1))
    whole = prepare_toys(tmp_path, image=any_size)
    test = load_dataset("toys", tmp_path).test
    assert examples(pixels(test), test.y) == examples(*whole["test"])


def test_a_version_may_be_named(tmp_path, data_dir):
    prepare_toys(tmp_path)
    digests = {
        load_dataset(name, tmp_path).digest for name in ("toys", "toys:1.0.0")
    }
    assert len(digests) == 1
    # Not scaled otherwise than without a version.
    version = tfds.builder("cifar10", data_dir=data_dir).version
    pinned = load_dataset(f"cifar10:{version}", data_dir)
    assert pinned.digest == load_dataset("cifar10", data_dir).digest


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_standardised_by_the_channels_of_open_lth(name):
    black_red_blue = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], "uint8")
    images = black_red_blue.reshape(1, 1, 3, 3)
    split = data.tfds._split(name, images, np.array([0]))
    # By hand: (0 - 0.485) / 0.229, (0 - 0.456) / 0.224, ...
    black, red, blue = (-2.117904, 2.248908), -2.035714, (-1.804444, 2.64)
    expected = [
        [black[0], red, blue[0]],
        [black[1], red, blue[0]],
        [black[0], red, blue[1]],
    ]
    assert np.allclose(split.x[0, 0], expected, atol=1e-5)


def test_the_test_data_do_not_change_what_is_trained_on(tmp_path):
    trained_on = []
    for n in (7, 8):
        folder = tmp_path / f"{n}"
        prepare_toys(folder, {"train": draw(40), "test": draw(n)})
        trained_on.append(load_dataset("toys", folder).train.x)
    assert np.array_equal(*trained_on)


SIXTEEN_BITS = tfds.features.Image(shape=(4, 3, 1), dtype=np.uint16)
ANY_SIZE = tfds.features.Image(shape=(None, None, 1))
UNEQUAL = [draw(2)[0][0], draw(2, (5, 3, 1))[0][0]]
REFUSED = {
    "no label": (
        {"keys": ""},
        r"is not one of 8-bit images with a class label each: its supervised "
        r"keys are None, its features image \(Image\), label \(ClassLabel\)",
    ),
    "text for a label": (
        {
            "label": tfds.features.Text(),
            "splits": {"train": (draw(2)[0], ["a", "b"])},
        },
        r"8-bit images with a class label each.*label \(Text\)",
    ),
    "16 bits": (
        {
            "image": SIXTEEN_BITS,
            "splits": {"train": (draw(2)[0].astype("uint16"), [0, 1])},
        },
        "is not one of 8-bit images",
    ),
    "sizes": (
        {"image": ANY_SIZE, "splits": {"train": (UNEQUAL, [0, 1])}},
        r"differ in size: some are \(4, 3, 1\) and some \(5, 3, 1\). Resize",
    ),
    "sizes of splits": (
        {
            "image": ANY_SIZE,
            "splits": {"train": draw(9), "test": draw(9, (5, 3, 1))},
        },
        r"differ in size: some are \(4, 3, 1\) and some \(5, 3, 1\). Resize",
    ),
    "unlabelled": (
        {"splits": {"train": draw(9), "test": (draw(2)[0], [-1, 0])}},
        "has 1 examples without a label in its split 'test'. Load it yourself",
    ),
    "nothing to train on": (
        {"splits": {"test": draw(9)}},
        "has no split named 'train', only test",
    ),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_classification_is_refused(given, message, tmp_path):
    prepare_toys(tmp_path, **given)
    with pytest.raises(ValueError, match=f"ata set 'toys' .*{message}") as info:
        load_dataset("toys", tmp_path)
    assert "\n" not in str(info.value)


def test_what_is_no_image_classification_is_not_even_downloaded(tmp_path):
    with pytest.raises(ValueError, match="is not one of 8-bit images"):
        load_dataset("imdb_reviews", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_copy_is_said_to_be_one(tmp_path):
    prepare_toys(tmp_path)
    (shard,) = tmp_path.rglob("*toys-test*")
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(
        ValueError,
        match="The test split of data set 'toys' cannot be read from "
        ".*toys/1.0.0'.*Delete that folder, and prepare it again",
    ):
        load_dataset("toys", tmp_path)


def test_offline_an_unprepared_set_is_one_line_with_the_command(
    offline, tmp_path, capfd
):
    with pytest.raises(ValueError, match="is not prepared in") as info:
        load_dataset("cifar100", tmp_path / "d")
    message = str(info.value)
    assert str(tmp_path / "d" / "cifar100") in message
    assert "www.cs.toronto.edu cannot be reached" in message
    assert (
        'python -c "import tensorflow_datasets as tfds; tfds.load('
        f"'cifar100', data_dir='{tmp_path / 'd'}')\""
    ) in message
    assert "\n" not in message
    out, err = capfd.readouterr()
    assert out == ""
    assert "cifar100" not in err


def test_a_prepared_set_needs_no_network(offline, data_dir):
    assert len(load_dataset("cifar100", data_dir).test) == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "Unknown data set 'mnits'. Did you mean 'mnist'"),
        ("cifar-10", "Did you mean 'cifar10'. Known: mnist, fashion_mnist, "),
        ("svhn_croped", "Did you mean 'svhn_cropped'"),
        ("qqqq", "cifar100, and the image classification sets of https://"),
        ("two words", "Unknown data set 'two words'"),
        ("", "Unknown data set ''"),
        ("nobody:mnist", "Unknown data set 'nobody:mnist'"),
        ("cifar10:9.9.9", "cannot be opened.* version 9.9.9, only: "),
        ("emnist/lettrs", "cannot be opened: .*lettrs not found"),
    ],
)
def test_an_unknown_data_set_lists_the_known(name, message, tmp_path):
    with pytest.raises(ValueError, match=message) as info:
        load_dataset(name, tmp_path)
    assert "\n" not in str(info.value)


class ToysToFetch(tfds.core.GeneratorBasedBuilder):
    """A set that TFDS knows, and prepares without a network."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 3, 1)),
                    "label": LABEL,
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, (image, label) in enumerate(zip(*draw(20), strict=True)):
            yield i, {"image": image, "label": label}


class ToysThatFail(ToysToFetch):
    def _generate_examples(self):
        raise OSError(28, "No space left on device")


def test_what_is_not_prepared_is_fetched_once_and_in_one_line(
    tmp_path, caplog, capfd
):
    verbosity = logging.getLogger("absl").level
    for _ in range(2):
        assert len(load_dataset("toys_to_fetch", tmp_path).train) == 18
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Downloading data set 'toys_to_fetch' to "
        f"'{tmp_path}/toys_to_fetch/1.0.0', once."
    )
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("absl").level == verbosity


def test_a_failed_preparation_is_one_line(tmp_path):
    with pytest.raises(
        ValueError,
        match="is not prepared in .*, and preparing it failed: .*No space left "
        "on device.* With a network connection, run: python -c",
    ) as info:
        load_dataset("toys_that_fail", tmp_path)
    assert "\n" not in str(info.value)


def test_a_server_that_refuses_is_a_network(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = http.server.BaseHTTPRequestHandler  # answers 501 to anything
    monkeypatch.setattr(handler, "log_message", lambda *_: None)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/data.tar.gz"
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        assert catalogue._answers(url)
        thread.join()
    assert not catalogue._answers(url)


def test_augmentation_goes_with_the_network_and_not_with_the_data(mnist):
    assert mnist.augment is None
    varied = dataclasses.replace(mnist, augment=AUGMENTATIONS["flip_crop"])
    assert varied.augment.pad == 4
    assert varied.digest == mnist.digest


# Arrays of the user's.

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 2, 1, 0])


def test_arrays_become_splits():
    dataset = from_arrays(X, Y, (X[:2], Y[:2]), (X[:1], Y[:1]))
    assert sizes(dataset) == {"train": 4, "validation": 2, "test": 1}
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
        (Y[:, None], "int32", (4, 1), 3),
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
    "nan": (NAN, Y, "x of NAME holds 1 nan or infinite"),
    "infinity": (INF, Y, "x of NAME holds 1 nan or infinite"),
    "nan target": (X, NAN[:, 2], "y of NAME holds 1 nan or infinite"),
    "lengths": (X, Y[:3], "NAME must hold as many inputs as .*4 in x, 3 in y"),
    "a target for all": (X, 3, "NAME holds no examples"),
    "empty": (X[:0], Y[:0], "NAME holds no examples"),
    "scalar": (3.0, Y, "NAME holds no examples"),
    "nothing": (None, Y, "NAME holds no examples"),
    "text labels": (X, list("abcd"), "Targets of NAME must be numbers; got te"),
    "objects": (X, [None] * 4, "must hold numbers or text; got an array of ob"),
    "complex": (X * 1j, Y, "must hold numbers or text; got an array of comple"),
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
            (X[..., None], Y),
            r"x of NAME has shape \(3, 1\) per example.*data \(3,\)",
        ),
        ((X[:, 0], Y), r"x of NAME has shape \(\) per example"),
        ((X, Y / 2), "y of NAME has .* of floats; .* of integers"),
        (X, r"NAME must be \(x, y\)"),
        ((X, Y, Y, Y), r"NAME must be \(x, y\)"),
        ({"x": X, "y": Y}, r"or a stream such as a tf.data.Dataset; got dict"),
    ],
    ids=["more axes", "vectors", "floats", "array", "four", "dict"],
)
def test_splits_of_another_form_are_refused(name, pair, message):
    with pytest.raises(ValueError, match=message.replace("NAME", name)):
        from_arrays(X, Y, **{name: pair})


def test_floats_beyond_float32_are_refused_without_a_warning():
    with pytest.raises(ValueError, match="x of x, y holds 12 nan or infinite"):
        from_arrays(np.full((4, 3), 1e300), Y)


def test_ragged_inputs_are_refused_by_the_name_of_their_split():
    with pytest.raises(ValueError, match="validation_data"):
        from_arrays(X, Y, validation_data=([[1.0], [2.0, 3.0]], [0, 1]))


@pytest.mark.parametrize("y", [Y / 2, np.eye(3, dtype=int)[Y]])
def test_targets_of_another_form_than_in_training_are_refused(y):
    with pytest.raises(ValueError, match="validation_data"):
        from_arrays(X, Y, validation_data=(X, y))
