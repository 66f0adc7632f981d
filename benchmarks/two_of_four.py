"""Gain of 2:4 structure on a CPU, in bytes and latency.

A network as it is drawn, dense, with two of every four inputs pruned, and with
half its weights pruned anywhere, in every float32 format that might skip
zeros: weights' values do not matter here. Files take turns, each in fresh
processes. Bytes and latency are the columns to look at; nothing is trained.

    python benchmarks/two_of_four.py lenet_300_100 conv_2
"""

import argparse
import os
import pathlib
import tempfile

import keras
import numpy as np
import training_speed

from tf_lottery import export, masking, models, pruning, tfmot
from tf_lottery.export import comparison


def main() -> None:
    """Exports, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=50)
    flags = parser.parse_args()
    for name in flags.models:
        with tempfile.TemporaryDirectory() as folder:
            model = models.build_model(name)
            x = np.random.default_rng(0).normal(
                size=(256, *model.input_shape[1:])
            )
            x = x.astype("float32")
            measured = comparison.compare(
                _exports(model, x, pathlib.Path(folder)),
                x,
                np.zeros(len(x), "int64"),
                rounds=flags.rounds,
                calls=flags.calls,
            )
        print(f"{name}\n\n{comparison.table(measured)}\n")
    print(f"{training_speed._cpu()}, {os.cpu_count()} cores")


def _exports(
    model: keras.Model, x: np.ndarray, folder: pathlib.Path
) -> list[comparison.Export]:
    masked = masking.mask_model(model)
    ones = masking.get_masks(masked)
    weights = {
        path: kernel.variable.numpy()
        for path, kernel in masking.kernels(model).items()
    }
    # Half of each kernel: what 2 of 4 leaves, for kernels of whole groups.
    structured = pruning.prune(tfmot.MByN()(weights, None), ones, 0.5)
    sizes = {path: np.abs(weight) for path, weight in weights.items()}
    anywhere = pruning.prune(sizes, ones, 0.5)
    exports = []
    for what, masks, names in (
        ("dense", ones, ("litert", "saved_model")),
        ("2:4", structured, ("litert", "sparse_litert", "sparse_saved_model")),
        ("half, anywhere", anywhere, ("sparse_litert", "sparse_saved_model")),
    ):
        pruned = masking.mask_model(model)
        masking.set_masks(pruned, masks)
        reference = pruned.predict(x, verbose=0)
        for name in names:
            format = export.FORMATS[name]
            label = f"{name}, {what}"
            path = folder / f"{len(exports)}{format.suffix}"
            export.write(pruned, path, name)
            exports.append(
                comparison.Export(label, path, format, reference, "")
            )
    return exports


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
