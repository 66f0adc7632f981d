"""Random flips and crops of training images."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.data import augmentation
from tf_lottery.data.augmentation import AUGMENTATIONS, Augmentation, augment

BATCH, HEIGHT, WIDTH, CHANNELS = 40, 5, 7, 3
SEED = tf.constant([3, 11], tf.int32)

KINDS = [name for name in AUGMENTATIONS if name != "none"]
CROP = Augmentation(pad=2)
FLIP_CROP = Augmentation(flip=True, pad=2)


@pytest.fixture
def images():
    """Images of which no two pixels are alike, none zero."""
    numbers = 1 + np.arange(BATCH * HEIGHT * WIDTH * CHANNELS)
    shape = (BATCH, HEIGHT, WIDTH, CHANNELS)
    return numbers.reshape(shape).astype("float32")


def crops(image, pad):
    """Every crop of an image within a border of zeros, by its place."""
    padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])
    places = range(2 * pad + 1)
    return {
        (top, left): padded[top : top + HEIGHT, left : left + WIDTH]
        for top, left in itertools.product(places, places)
    }


def place(found, image, pad):
    """Where a crop was cut, and whether it was mirrored."""
    where = [
        (*at, mirrored)
        for at, crop in crops(image, pad).items()
        for mirrored in (False, True)
        if np.array_equal(found, crop[:, ::-1] if mirrored else crop)
    ]
    assert len(where) == 1
    return where[0]


def test_a_flip_is_a_mirror_image_or_the_image(images):
    found = augment(images, SEED, Augmentation(flip=True)).numpy()
    mirrored = [place(f, i, 0)[2] for f, i in zip(found, images, strict=True)]
    assert 10 <= sum(mirrored) <= 30  # of 40; 20 expected


def test_a_crop_is_cut_from_the_image_within_zeros(images):
    found = augment(images, SEED, CROP).numpy()
    places = [place(f, i, 2) for f, i in zip(found, images, strict=True)]
    assert not any(mirrored for *_, mirrored in places)
    assert len(set(places)) > 12  # of 25


def test_flip_and_crop_are_both(images):
    found = augment(images, SEED, FLIP_CROP).numpy()
    places = [place(f, i, 2) for f, i in zip(found, images, strict=True)]
    assert len({at[:2] for at in places}) > 12
    assert 10 <= sum(mirrored for *_, mirrored in places) <= 30


def test_every_place_and_side_is_equally_likely():
    images = np.zeros((5_000, 1, 1, 1), "float32")
    # One pixel: it stays inside only if the crop is cut at the very middle.
    kept = augment(images + 1, SEED, Augmentation(pad=1)).numpy().mean()
    assert kept == pytest.approx(1 / 9, abs=0.02)
    row = np.broadcast_to(np.arange(2.0).reshape(1, 1, 2, 1), (5_000, 1, 2, 1))
    mirrored = augment(row, SEED, Augmentation(flip=True))[:, 0, 0].numpy()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)


def test_a_flip_is_drawn_alike_with_and_without_a_crop(images):
    both = augment(images, SEED, FLIP_CROP).numpy()
    flips = augment(images, SEED, Augmentation(flip=True)).numpy()
    for one, other, image in zip(both, flips, images, strict=True):
        assert place(one, image, 2)[2] == place(other, image, 0)[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides(images, kind):
    def drawn(*seed):
        return augment(images, tf.constant(seed, tf.int32), find(kind)).numpy()

    find = augmentation.get
    assert np.array_equal(drawn(3, 11), drawn(3, 11))
    for other in ((3, 12), (4, 11), (11, 3), (0, 0)):
        assert not np.array_equal(drawn(3, 11), drawn(*other))


def test_draws_never_change(images):
    found = augment(images, SEED, FLIP_CROP).numpy()
    places = [place(f, i, 2) for f, i in zip(found, images[:6], strict=False)]
    assert places == [
        (0, 0, True),
        (4, 2, False),
        (3, 4, True),
        (0, 2, True),
        (2, 4, False),
        (1, 3, False),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3, 8, BATCH])
def test_xla_graph_and_eager_draw_the_same(images, kind, batch):
    chosen = AUGMENTATIONS[kind]

    def varied(x, seed):
        return augment(x, seed, chosen)

    eager = varied(images[:batch], SEED).numpy()
    for compile_ in (False, True):
        compiled = tf.function(varied, jit_compile=compile_, autograph=False)
        assert np.array_equal(compiled(images[:batch], SEED), eager)


@pytest.mark.parametrize("kind", KINDS)
def test_an_images_draw_depends_on_its_place_and_not_on_the_batch(images, kind):
    whole = augment(images, SEED, AUGMENTATIONS[kind]).numpy()
    for batch in (1, 2, 5, 39):
        part = augment(images[:batch], SEED, AUGMENTATIONS[kind]).numpy()
        assert np.array_equal(part, whole[:batch])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jit", [False, True])
def test_replicas_draw_each_by_its_own_seed(images, kind, jit):
    seeds = tf.constant([[0, 1], [2, 3], [4, 5]], tf.int32)

    def varied(seed):
        return augment(images, seed, AUGMENTATIONS[kind])

    together = tf.function(
        lambda: tf.vectorized_map(varied, seeds), jit_compile=jit
    )()
    for seed, found in zip(seeds, together, strict=True):
        assert np.array_equal(varied(seed), found)


def test_no_augmentation_changes_nothing(images):
    assert augment(images, SEED, None) is images
    assert np.array_equal(augment(images, SEED, Augmentation()), images)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_the_type_of_the_images_stays(dtype):
    images = np.full((4, 3, 3, 1), 9, dtype)
    found = augment(images, SEED, FLIP_CROP).numpy()
    assert found.dtype == dtype
    assert set(np.unique(found)) <= {0, 9}


def test_the_papers_augmentation_pads_by_four_and_flips():
    assert augmentation.get("flip_crop") == Augmentation(flip=True, pad=4)
    assert augmentation.get("none") is None


def test_an_unknown_augmentation_lists_the_known():
    with pytest.raises(ValueError, match="Did you mean 'flip_crop'"):
        augmentation.get("flipcrop")


@pytest.mark.parametrize("pad", [-1, 1.5, True, "4"])
def test_a_wrong_padding_is_refused(pad):
    with pytest.raises(ValueError, match="`pad` must be a whole number"):
        Augmentation(pad=pad)


def test_an_augmentation_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AUGMENTATIONS["flip"].pad = 3
