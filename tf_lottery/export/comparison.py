"""Comparison of exported files: metrics, size, memory and latency."""

import dataclasses
import gzip
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.export import benchmark_worker, evaluation, examples, formats
from tf_lottery.export.signatures import Signature, signature_of

COLUMNS = ("as Keras", "bytes", "gzipped", "at load", "batch 1", "batch 256")
"""Columns of the table after the file's name and its scores."""


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported file.

    Attributes:
        name: Its name in the table.
        path: Its path.
        format: Its format.
        reference: Outputs of its Keras model for the test inputs,
            `[examples, ...]`, in the structure of the model.
        why: Why it is, or is not, faster than the dense original.
        signature: The names of its inputs and outputs, from `signature_of`;
            None for one input and one output.
    """

    name: str
    path: pathlib.Path
    format: formats.Format
    reference: Any
    why: str
    signature: Signature | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measurements of an exported file.

    Attributes:
        export: The file.
        scores: Metric name to value on the test set, computed by Keras from
            the file's outputs.
        agreement: The fraction of predicted classes that equal those of the
            file's Keras model, in [0, 1]; None if no output is a class.
        difference: The largest absolute difference to the outputs of its
            Keras model.
        size: Bytes on disk.
        gzipped: Bytes as `.tar.gz`, or `.gz`.
        loading: Peak increase of the process's memory in bytes while the file
            was loaded and called once; None where the system does not
            provide it.
        seconds: Batch size to the seconds of each call, `[calls]`.
    """

    export: Export
    scores: Mapping[str, float]
    agreement: float | None
    difference: float
    size: int
    gzipped: int
    loading: int | None
    seconds: Mapping[int, np.ndarray]

    @property
    def accuracy(self) -> float:
        """The accuracy of a file whose only output is a class, in [0, 1]."""
        return self.scores["accuracy"]

    def latency(self, batch: int) -> tuple[float, float, float]:
        """Returns median, lower and upper quartile in microseconds.

        Args:
            batch: A batch size, a key of `seconds`.
        """
        low, median, high = np.quantile(self.seconds[batch], [0.25, 0.5, 0.75])
        return 1e6 * median, 1e6 * low, 1e6 * high


def with_original(
    original: keras.Model,
    exports: Sequence[Export],
    x: Any,
    y: Any,
    threads: int = 1,
    rounds: int = 1,
    metric: evaluation.Metric = None,
) -> list[Measured]:
    """Measures exported files, and the dense original in the same runtimes.

    Args:
        original: The dense model.
        exports: Files that were exported from a ticket.
        x: Test inputs, `[examples, ...]`, in the structure of the model's.
        y: Test targets, in the structure of the model's outputs.
        threads: Threads that each runtime may use, >= 1.
        rounds: Processes for each file, >= 1. Files take turns, so that other
            load of the machine affects all alike.
        metric: A metric of `keras.Model.compile`: a name, a Keras metric or
            a loss; for several outputs, a dict by output name. None for
            `"accuracy"` if targets are whole numbers, and
            `"mean_squared_error"` otherwise.

    Returns:
        The dense original in each runtime, then the files.

    Raises:
        UserError: A file cannot be loaded.
    """
    signature = signature_of(original, x)
    reference = _predicted(original, signature, x)
    with tempfile.TemporaryDirectory() as folder:
        dense = []
        for runtime in dict.fromkeys(e.format.runtime for e in exports):
            base = formats.FORMATS[runtime]
            path = pathlib.Path(folder) / f"dense_{runtime}{base.suffix}"
            base.write(original, path, x=x)
            name = f"dense original, {runtime}"
            dense.append(Export(name, path, base, reference, "", signature))
        return compare([*dense, *exports], x, y, threads, rounds, metric=metric)


def _predicted(
    model: keras.Model, signature: Signature, x: Any
) -> list[np.ndarray]:
    def predict(arrays: benchmark_worker.Arrays) -> list[np.ndarray]:
        inputs = keras.tree.pack_sequence_as(signature.inputs, list(arrays))
        return keras.tree.flatten(model.predict_on_batch(inputs))

    size, fixed = signature.batch or 256, signature.batch is not None
    function = benchmark_worker.in_batches(predict, size, pad=fixed)
    return function(examples.flatten(signature, x))


def compare(
    exports: Sequence[Export],
    x: Any,
    y: Any,
    threads: int = 1,
    rounds: int = 1,
    calls: int = 200,
    metric: evaluation.Metric = None,
) -> list[Measured]:
    """Measures exported files, each in processes of its own.

    Args:
        exports: The files.
        x: Test inputs, `[examples, ...]`, in the structure of the model's.
        y: Test targets, in the structure of the model's outputs.
        threads: Threads that each runtime may use, >= 1.
        rounds: Processes for each file, >= 1. Files take turns, so that other
            load of the machine affects all alike.
        calls: Timed calls of each batch size in each process, >= 1.
        metric: A metric of `keras.Model.compile`: a name, a Keras metric or
            a loss; for several outputs, a dict by output name. None for
            `"accuracy"` if targets are whole numbers, and
            `"mean_squared_error"` otherwise.

    Raises:
        UserError: A file cannot be loaded.
    """
    results: list[list[dict[str, np.ndarray]]] = [[] for _ in exports]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for export, outputs in zip(exports, results, strict=True):
                arrays = [np.asarray(x)]
                if export.signature is not None:
                    arrays = examples.flatten(export.signature, x)
                np.savez(f"{folder}/x.npz", *arrays)
                outputs.append(_run(export, folder, threads, calls))
    return [
        _measured(export, outputs, y, metric)
        for export, outputs in zip(exports, results, strict=True)
    ]


def _run(
    export: Export, folder: str, threads: int, calls: int
) -> dict[str, np.ndarray]:
    names: dict[str, Any] = {"inputs": None, "outputs": None, "batch": None}
    if export.signature is not None:
        names = export.signature.described()
    arguments = [export.format.runtime, export.path, f"{folder}/x.npz"]
    arguments += [f"{folder}/out.npz", threads, calls, json.dumps(names)]
    process = subprocess.run(
        # Isolated: only installed packages, not the current directory.
        [sys.executable, "-I", benchmark_worker.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{export.path} cannot be measured: {lines[-1]}")
    with np.load(f"{folder}/out.npz") as arrays:
        return dict(arrays)


def _measured(
    export: Export,
    results: Sequence[Mapping[str, np.ndarray]],
    y: Any,
    metric: evaluation.Metric,
) -> Measured:
    reference = keras.tree.flatten(export.reference)
    outputs = [results[0][f"output_{i}"] for i in range(len(reference))]
    names = export.signature.outputs if export.signature else ("output",)
    evaluator = evaluation.Evaluator(names, y, metric)
    loading = max(int(result["loading"]) for result in results)
    return Measured(
        export,
        scores=evaluator.scores(outputs),
        agreement=evaluator.agreement(outputs, reference),
        difference=evaluation.max_difference(outputs, reference),
        size=sum(p.stat().st_size for p in _files(export.path)),
        gzipped=_gzipped(export.path),
        loading=loading if loading >= 0 else None,
        seconds={
            batch: np.concatenate([r[f"batch_{batch}"] for r in results])
            for batch in benchmark_worker.BATCHES
        },
    )


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in (path, *path.rglob("*")) if p.is_file()]


def _gzipped(path: pathlib.Path) -> int:
    if path.is_file():
        return len(gzip.compress(path.read_bytes()))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(path, arcname=path.name)
    return len(gzip.compress(archive.getvalue()))


def table(measured: Sequence[Measured]) -> str:
    """Returns the measurements as a Markdown table.

    Args:
        measured: The measurements, at least one.
    """
    columns = ("file", *measured[0].scores, *COLUMNS)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for m in measured:
        memory = "?" if m.loading is None else f"{m.loading / 2**20:.1f} MiB"
        times = [m.latency(batch) for batch in benchmark_worker.BATCHES]
        cells = [
            m.export.name,
            *(_score(name, value) for name, value in m.scores.items()),
            _as_keras(m),
            f"{m.size:,}",
            f"{m.gzipped:,}",
            memory,
            *(f"{t[0]:.0f} [{t[1]:.0f}–{t[2]:.0f}] µs" for t in times),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _score(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if "accuracy" in name else f"{value:.4g}"


def _as_keras(measured: Measured) -> str:
    if measured.agreement is None:
        return f"± {measured.difference:.1e}"
    return f"{100 * measured.agreement:.2f} %"


def sentences(measured: Sequence[Measured], threads: int) -> list[str]:
    """Returns an explanation of the table, one line for each file.

    Each file is compared with the first one of the same runtime, so that a
    faster runtime does not count as a faster ticket.

    Args:
        measured: The measurements, at least one.
        threads: Threads that each runtime could use.
    """
    calls, first = len(measured[0].seconds[1]), measured[0]
    same = "the largest difference to the outputs of"
    if first.agreement is not None:
        same = "the same decisions as"
    lines = [
        f"{', '.join(first.scores).capitalize()}, and `as Keras` ({same} "
        "its Keras model), are measured on the file. Latency: median "
        f"[quartiles] of {calls} calls on {threads} of {os.cpu_count()} cores."
    ]
    for m in measured:
        runtime = m.export.format.runtime
        first = next(o for o in measured if o.export.format.runtime == runtime)
        if first is m:
            continue
        ratios = [
            f"{first.latency(batch)[0] / m.latency(batch)[0]:.2f} times as "
            f"fast at batch {batch}"
            for batch in benchmark_worker.BATCHES
        ]
        lines.append(
            f"{m.export.name}, by {first.export.name}: {', '.join(ratios)}; "
            f"{m.export.why}."
        )
    return lines
