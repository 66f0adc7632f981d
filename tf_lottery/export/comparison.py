"""This module knows the table that says what each exported file costs."""

import dataclasses
import gzip
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tf_lottery.export import formats, measuring

COLUMNS = (
    "file",
    "accuracy",
    "as Keras",
    "bytes",
    "gzipped",
    "at load",
    "batch 1",
    "batch 256",
)


@dataclasses.dataclass(frozen=True)
class Export:
    """A file that was exported.

    Attributes:
        name: What the table calls it.
        path: Where it is.
        format: What it is.
        reference: What the Keras model that it was made of returns for the
            test inputs, `[examples, classes]`.
        why: Why it is, or is not, faster than the dense original.
    """

    name: str
    path: pathlib.Path
    format: formats.Format
    reference: np.ndarray
    why: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of an exported file.

    Attributes:
        export: The file.
        accuracy: On the test set, by the file itself.
        agreement: The fraction of test examples that the file classifies as
            the Keras model does that it was made of.
        size: Bytes on disk.
        gzipped: Bytes as `.tar.gz`, or `.gz`.
        loading: By how many bytes memory rose at most while it was loaded and
            had computed once. None: the system does not tell.
        seconds: Batch size to the seconds of every call.
    """

    export: Export
    accuracy: float
    agreement: float
    size: int
    gzipped: int
    loading: int | None
    seconds: Mapping[int, np.ndarray]

    def latency(self, batch: int) -> tuple[float, float, float]:
        """Returns the median, and the quartiles, in microseconds."""
        low, median, high = np.quantile(self.seconds[batch], [0.25, 0.5, 0.75])
        return 1e6 * median, 1e6 * low, 1e6 * high


def with_original(
    original: keras.Model,
    exports: Sequence[Export],
    x: np.ndarray,
    y: np.ndarray,
    threads: int = 1,
    rounds: int = 1,
) -> list[Measured]:
    """Returns what exported files cost, and the dense original in each runtime.

    Args:
        original: The dense network.
        exports: The files that were made of a ticket.
        x: Test inputs, `[examples, ...]`.
        y: Their classes, int `[examples]`.
        threads: As `compare` takes it.
        rounds: As `compare` takes it.

    Raises:
        ValueError: A file cannot be loaded; the message says why.
    """
    reference = original.predict(x, batch_size=256, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        dense = []
        for runtime in dict.fromkeys(e.format.runtime for e in exports):
            base = formats.FORMATS[runtime]
            path = pathlib.Path(folder) / f"dense_{runtime}{base.suffix}"
            base.write(original, path)
            name = f"dense original, {runtime}"
            dense.append(Export(name, path, base, reference, ""))
        return compare([*dense, *exports], x, y, threads, rounds)


def compare(
    exports: Sequence[Export],
    x: np.ndarray,
    y: np.ndarray,
    threads: int = 1,
    rounds: int = 1,
    calls: int = 200,
) -> list[Measured]:
    """Returns what exported files cost, each measured in fresh processes.

    Args:
        exports: The files.
        x: Test inputs, `[examples, ...]`.
        y: Their classes, int `[examples]`.
        threads: Threads that each runtime may use.
        rounds: Processes for each file. They run in turn, so that what else
            the machine does meets all files alike.
        calls: Timed calls of each batch size in each process.

    Raises:
        ValueError: A file cannot be loaded; the message says why.
    """
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in exports]
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        for _ in range(rounds):
            for export, results in zip(exports, found, strict=True):
                results.append(_run(export, folder, threads, calls))
    return [
        _measured(export, results, y)
        for export, results in zip(exports, found, strict=True)
    ]


def _run(
    export: Export, folder: str, threads: int, calls: int
) -> dict[str, np.ndarray]:
    arguments = [export.format.runtime, export.path, f"{folder}/x.npy"]
    arguments += [f"{folder}/out.npz", threads, calls]
    process = subprocess.run(
        # Isolated: it sees installed packages, and no directory of ours.
        [sys.executable, "-I", measuring.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        said = process.stderr.strip().splitlines() or ["nothing was said"]
        raise ValueError(f"{export.path} cannot be measured: {said[-1]}")
    with np.load(f"{folder}/out.npz") as arrays:
        return dict(arrays)


def _measured(
    export: Export, results: Sequence[Mapping[str, np.ndarray]], y: np.ndarray
) -> Measured:
    classes = results[0]["outputs"].argmax(axis=-1)
    loading = max(int(result["loading"]) for result in results)
    return Measured(
        export,
        accuracy=float((classes == y).mean()),
        agreement=float((classes == export.reference.argmax(axis=-1)).mean()),
        size=sum(p.stat().st_size for p in _files(export.path)),
        gzipped=_gzipped(export.path),
        loading=loading if loading >= 0 else None,
        seconds={
            batch: np.concatenate([r[f"batch_{batch}"] for r in results])
            for batch in measuring.BATCHES
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
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for m in measured:
        memory = "?" if m.loading is None else f"{m.loading / 2**20:.1f} MiB"
        times = [m.latency(batch) for batch in measuring.BATCHES]
        cells = [
            m.export.name,
            f"{100 * m.accuracy:.2f} %",
            f"{100 * m.agreement:.2f} %",
            f"{m.size:,}",
            f"{m.gzipped:,}",
            memory,
            *(f"{t[0]:.0f} [{t[1]:.0f}–{t[2]:.0f}] µs" for t in times),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sentences(measured: Sequence[Measured], threads: int) -> list[str]:
    """Returns what the table means, one line for each file.

    Each is compared with the first file that the same runtime ran, so that no
    ticket is praised for its runtime.
    """
    calls = len(measured[0].seconds[1])
    lines = [
        "Accuracy, and `as Keras` (the same class as the Keras model it was "
        "made of), are the file's own. Latency: median [quartiles] of "
        f"{calls} calls on {threads} of {os.cpu_count()} cores."
    ]
    for m in measured:
        runtime = m.export.format.runtime
        first = next(o for o in measured if o.export.format.runtime == runtime)
        if first is m:
            continue
        ratios = [
            f"{first.latency(batch)[0] / m.latency(batch)[0]:.2f} times as "
            f"fast at batch {batch}"
            for batch in measuring.BATCHES
        ]
        lines.append(
            f"{m.export.name}, by {first.export.name}: {', '.join(ratios)}; "
            f"{m.export.why}."
        )
    return lines
