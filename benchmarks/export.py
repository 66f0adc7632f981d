r"""Size, memory and latency of a ticket in each export format.

A run's ticket, whole and shrunk, in every format, beside the dense network of
the same run in every runtime: accuracy from the file, bytes, memory, latency.
Each file is measured in fresh processes, `--rounds` of them, which take turns.
Then what a product with the survivors of the first layer would cost, in the
sparse kernels of TensorFlow, which lose to the dense one in batches, and of
SciPy, which win and which no format can carry.

    tf-lottery run lenet_mnist --levels 6 --set rate=0.42 --steps 3000 \
        --controls "" --replicates 1 --run_dir runs/export
    python benchmarks/export.py runs/export --level 6

Needs the extra `onnx`.
"""

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf
import training_speed

from tf_lottery import data, export, masking
from tf_lottery.export import comparison
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import run_directory


def main() -> None:
    """Exports, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run_dir")
    parser.add_argument("--level", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    directory = run_directory.RunDirectory.open(flags.run_dir)
    ticket = directory.ticket(0, flags.level)
    settings = directory.config["metadata"]["settings"]
    test = data.load_dataset(settings["dataset"]).test
    with tempfile.TemporaryDirectory() as folder:
        _print_sizes(ticket, pathlib.Path(folder))
        measured = comparison.with_original(
            export.plain(directory.ticket(0, 0)),
            _exports(ticket, test.x, pathlib.Path(folder)),
            test.x,
            test.y,
            flags.threads,
            flags.rounds,
        )
    print(comparison.table(measured))
    print()
    for line in comparison.sentences(measured, flags.threads):
        print(f"- {line}")
    print()
    _print_products(ticket, test.x)
    print(f"\n{training_speed._cpu()}, {os.cpu_count()} cores")


def _exports(
    ticket: Ticket, x: np.ndarray, folder: pathlib.Path
) -> list[comparison.Export]:
    whole = export.plain(ticket)
    shrunk, fewest = (
        export.shrink(ticket, skip_inputs=skip) for skip in (False, True)
    )
    print(f"weights: {shrunk.before:,}", end="")
    print(f"; shrunk {shrunk.after:,}; inputs skipped {fewest.after:,}\n")
    gone = "units that are dead are gone; "
    skipped = "inputs that nobody reads are skipped, and the rest gathered; "
    made = [
        (whole, name, dtype, "", "")
        for name, format in export.FORMATS.items()
        for dtype in format.dtypes
    ]
    made += [
        (shrunk.model, name, dtype, ", shrunk", gone)
        for name, dtype in (
            ("saved_model", "float32"),
            ("keras", "float32"),
            ("litert", "float32"),
            ("litert", "int8"),
            ("sparse_litert", "float32"),
            ("onnx", "float32"),
        )
    ]
    made += [
        (fewest.model, name, "float32", ", shrunk, skipping inputs", skipped)
        for name in ("saved_model", "litert", "onnx")
    ]
    exports = []
    for model, name, dtype, what, why in made:
        format = export.FORMATS[name]
        label = f"{name}, {dtype}{what}"
        path = folder / f"{label}{format.suffix}".replace(", ", "_")
        export.write(model, path, name, dtype)
        reference = model.predict(x, batch_size=256, verbose=0)
        reason = why + format.why[dtype]
        exports.append(
            comparison.Export(label, path, format, reference, reason)
        )
    return exports


def _print_sizes(ticket: Ticket, folder: pathlib.Path) -> None:
    """Prints how large the ticket's file is, and its SavedModels' weights."""
    print(f"density {ticket.density:.4f}, {ticket.masks.kept:,} survivors")
    for values in (True, False):
        ticket.save(folder / "ticket", values=values)
        size = (folder / "ticket").stat().st_size
        print(f"ticket file, {'values' if values else 'seed'}: {size:,} bytes")
    densities = [(m.size, m.mean()) for m in ticket.masks.values()]
    entropy = sum(
        -n * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
        for n, p in densities
        if p < 1
    )
    print(f"entropy of the masks: {entropy / 8:,.0f} bytes")
    sizes = {}
    for name in ("saved_model", "sparse_saved_model"):
        path = export.write(ticket, folder / name, name)
        found = path.glob("variables/*")
        sizes[name] = sum(file.stat().st_size for file in found)
        print(f"{name}, its variables alone: {sizes[name]:,} bytes")
    share = sizes["sparse_saved_model"] / sizes["saved_model"]
    print(f"sparse by dense: {share:.3f}")


def _print_products(ticket: Ticket, x: np.ndarray) -> None:
    """Prints how long the first kernel's product takes, dense and sparse."""
    path = next(iter(masking.kernels(export.plain(ticket))))
    kernel = ticket.trained[path] * ticket.masks[path]
    if kernel.ndim != 2:
        return
    batches = {n: x[:n].reshape(n, -1) for n in (1, 256)}
    rows, columns = np.nonzero(kernel.T)
    sparse = tf.SparseTensor(
        np.stack([rows, columns], axis=1),
        kernel.T[rows, columns],
        kernel.T.shape,
    )
    compressed = scipy.sparse.csr_matrix(kernel.T)
    dense = tf.constant(kernel)
    products: dict[str, Callable[[np.ndarray], object]] = {
        "tf.matmul": lambda v: tf.matmul(v, dense).numpy(),
        "tf.sparse.sparse_dense_matmul": lambda v: (
            tf.sparse.sparse_dense_matmul(sparse, v, adjoint_b=True).numpy()
        ),
        "scipy.sparse.csr_matrix @": lambda v: compressed @ v.T,
    }
    print(f"| {path} {kernel.shape} | batch 1 | batch 256 |\n|---|---|---|")
    for name, product in products.items():
        cells = [_microseconds(product, batch) for batch in batches.values()]
        print(f"| {name} | {' | '.join(cells)} |")


def _microseconds(
    product: Callable[[np.ndarray], object], x: np.ndarray
) -> str:
    times = []
    for call in range(210):
        begun = time.perf_counter()
        product(x)
        if call >= 10:
            times.append(1e6 * (time.perf_counter() - begun))
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75])
    return f"{median:.0f} [{low:.0f}–{high:.0f}] µs"


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
