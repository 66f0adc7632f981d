"""The table that says what each exported file computes, and what it costs."""

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
from tf_lottery.export import benchmark_worker, examples, formats, scores
from tf_lottery.export.signatures import Signature, signature_of

COLUMNS = ("as Keras", "bytes", "gzipped", "at load", "batch 1", "batch 256")
"""What follows the file's name and its scores."""


@dataclasses.dataclass(frozen=True)
class Export:
    """A file that was exported.

    Attributes:
        name: What the table calls it.
        path: Where it is.
        format: What it is.
        reference: What the Keras model that it was made of returns for the
            test inputs, `[examples, ...]`, in the structure of the model.
        why: Why it is, or is not, faster than the dense original.
        signature: The names of its inputs and outputs, `signature_of` the
            model. None: it has one of each.
    """

    name: str
    path: pathlib.Path
    format: formats.Format
    reference: Any
    why: str
    signature: Signature | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of an exported file.

    Attributes:
        export: The file.
        scores: By the metric's name, its value on the test set, computed by
            Keras from what the file returns.
        agreement: The fraction of decisions that the file makes as the Keras
            model does that it was made of. None: it classifies nothing.
        difference: How far its outputs and Keras' lie apart at most.
        size: Bytes on disk.
        gzipped: Bytes as `.tar.gz`, or `.gz`.
        loading: By how many bytes memory rose at most while it was loaded and
            had computed once. None: the system does not tell.
        seconds: Batch size to the seconds of every call.
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
        """The accuracy, of a file with one output that is a class."""
        return self.scores["accuracy"]

    def latency(self, batch: int) -> tuple[float, float, float]:
        """Returns the median, and the quartiles, in microseconds."""
        low, median, high = np.quantile(self.seconds[batch], [0.25, 0.5, 0.75])
        return 1e6 * median, 1e6 * low, 1e6 * high


def with_original(
    original: keras.Model,
    exports: Sequence[Export],
    x: Any,
    y: Any,
    threads: int = 1,
    rounds: int = 1,
    metric: scores.Metric = None,
) -> list[Measured]:
    """Returns what exported files cost, and the dense original in each runtime.

    Args:
        original: The dense network.
        exports: The files that were made of a ticket.
        x: Test inputs, `[examples, ...]`, as the model takes them.
        y: Test targets, in the structure of the model's outputs.
        threads: Threads that each runtime may use.
        rounds: Processes for each file, as for `compare`.
        metric: What decides, as for `compare`.

    Raises:
        ValueError: A file cannot be loaded; the message says why.
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
    return function(examples.given(signature, x))


def compare(
    exports: Sequence[Export],
    x: Any,
    y: Any,
    threads: int = 1,
    rounds: int = 1,
    calls: int = 200,
    metric: scores.Metric = None,
) -> list[Measured]:
    """Returns what exported files cost, each measured in fresh processes.

    Args:
        exports: The files.
        x: Test inputs, `[examples, ...]`, as the model takes them.
        y: Test targets, in the structure of the model's outputs.
        threads: Threads that each runtime may use.
        rounds: Processes for each file. They run in turn, so that what else
            the machine does meets all files alike.
        calls: Timed calls of each batch size in each process.
        metric: What decides, computed as `keras.Model.compile` computes it
            from its `metrics`: a name, a Keras metric or a loss; of several
            outputs, a dict by output name. None: `"accuracy"` for targets
            that are whole numbers, `"mean_squared_error"` for others.

    Raises:
        ValueError: A file cannot be loaded; the message says why.
    """
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in exports]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for export, results in zip(exports, found, strict=True):
                arrays = [np.asarray(x)]
                if export.signature is not None:
                    arrays = examples.given(export.signature, x)
                np.savez(f"{folder}/x.npz", *arrays)
                results.append(_run(export, folder, threads, calls))
    return [
        _measured(export, results, y, metric)
        for export, results in zip(exports, found, strict=True)
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
        # Isolated: it sees installed packages, and no directory of ours.
        [sys.executable, "-I", benchmark_worker.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        said = process.stderr.strip().splitlines() or ["nothing was said"]
        raise UserError(f"{export.path} cannot be measured: {said[-1]}")
    with np.load(f"{folder}/out.npz") as arrays:
        return dict(arrays)


def _measured(
    export: Export,
    results: Sequence[Mapping[str, np.ndarray]],
    y: Any,
    metric: scores.Metric,
) -> Measured:
    reference = keras.tree.flatten(export.reference)
    outputs = [results[0][f"output_{i}"] for i in range(len(reference))]
    names = export.signature.outputs if export.signature else ("output",)
    task = scores.Task(names, y, metric)
    loading = max(int(result["loading"]) for result in results)
    return Measured(
        export,
        scores=task.scores(outputs),
        agreement=task.agreement(outputs, reference),
        difference=scores.difference(outputs, reference),
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
    """Returns the table as Markdown; medians with quartiles."""
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
    """Returns what the table means, one line for each file.

    Each is compared with the first file that the same runtime ran, so that no
    ticket is praised for its runtime.
    """
    calls, first = len(measured[0].seconds[1]), measured[0]
    same = "the largest difference to the outputs of"
    if first.agreement is not None:
        same = "the same decisions as"
    lines = [
        f"{', '.join(first.scores).capitalize()}, and `as Keras` ({same} "
        "the Keras model it was made of), are the file's own. Latency: median "
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
