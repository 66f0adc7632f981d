"""Small data sets, prepared offline by the builders of TFDS."""

import numpy as np
import tensorflow_datasets as tfds

SMALL = {"train": 40, "test": 7}


def draw(examples, shape=(4, 3, 1), classes=5):
    """Images and labels, no two images alike."""
    rng = np.random.default_rng(examples)
    images = rng.integers(256, size=(examples, *shape), dtype="uint8")
    return images, np.arange(examples) % classes


def prepare(base, name, data_dir, splits, example, **members):
    """Writes splits as TFDS's builder `base` does after a download."""

    def rows(split):
        for i, (image, label) in enumerate(zip(*splits[split], strict=True)):
            yield i, example(i, image, label)

    members |= {
        "_split_generators": lambda self, manager: {s: rows(s) for s in splits},
        "_generate_examples": lambda self: None,
        "name": name,
    }
    with tfds.core.registered.skip_registration():
        builder = type("Builder", (base,), {"__module__": __name__, **members})
    builder(data_dir=str(data_dir)).download_and_prepare()


LABEL = tfds.features.ClassLabel(num_classes=5)


def prepare_toys(
    data_dir, splits=None, image=None, label=LABEL, keys="image label"
):
    """Writes a set "toys" of small images; returns its splits.

    `image` and `label` are features of TFDS; `keys` what TFDS calls the
    supervised keys.
    """
    splits = splits or {s: draw(n) for s, n in SMALL.items()}
    features = {
        "image": image or tfds.features.Image(shape=(4, 3, 1)),
        "label": label,
    }

    def info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=tuple(keys.split()) or None,
        )

    prepare(
        tfds.core.GeneratorBasedBuilder,
        "toys",
        data_dir,
        splits,
        lambda i, image, label: {"image": image, "label": label},
        _info=info,
        VERSION=tfds.core.Version("1.0.0"),
    )
    return splits


def prepare_small_copy(name, data_dir, sizes=SMALL):
    """Writes a few images of our own as the copy of a set that TFDS knows."""
    original = tfds.builder_cls(name)
    features = original(data_dir=str(data_dir)).info.features
    shape, classes = features["image"].shape, features["label"].num_classes
    prepare(
        original,
        name,
        data_dir,
        {split: draw(n, shape, classes) for split, n in sizes.items()},
        lambda i, image, label: {
            key: {"image": image, "label": label, "id": f"{i}"}.get(key, 0)
            for key in features
        },
        __module__=original.__module__,
    )
