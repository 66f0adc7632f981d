"""This module knows how an exported file is measured, in a process of its own.

    python measuring.py RUNTIME PATH X.npy OUT.npz THREADS CALLS

It is run as a script and imports nothing of tf_lottery: what is measured is
what a stranger has. OUT.npz then holds `outputs` `[examples, ...]`; `loading`,
the bytes by which the process's memory rose at most while it loaded the file
and computed once, or -1 where the system does not tell; and `batch_1` and
`batch_256`, the seconds that each call took.
"""

import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCHES = (1, 256)
_WARM_UP = 10

Function = Callable[[np.ndarray], np.ndarray]


def main(arguments: list[str]) -> None:
    """Measures one file and writes what was found."""
    runtime, path, x_file, out_file, threads, calls = arguments
    x = np.load(x_file)
    start = RUNTIMES[runtime](int(threads))
    before = _resident()
    function = start(path)
    function(x[:1])
    peak = _peak()
    found: dict[str, Any] = {
        "loading": -1 if peak is None or before is None else peak - before
    }
    for batch in BATCHES:
        given = np.resize(x, (batch, *x.shape[1:]))
        found[f"batch_{batch}"] = _seconds(function, given, int(calls))
    outputs = [function(x[i : i + 256]) for i in range(0, len(x), 256)]
    found["outputs"] = np.concatenate(outputs)
    np.savez(out_file, **found)


def _saved_model(threads: int) -> Callable[[str], Function]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

    def load(path: str) -> Function:
        loaded = tf.saved_model.load(path)
        # The signature is what is served. A third of the time of calling
        # `loaded.serve` is Python's search for the function that fits.
        found = loaded.signatures["serving_default"]
        (name,) = found.structured_input_signature[1]

        def call(x: np.ndarray) -> np.ndarray:
            # By way of `loaded`: a signature does not keep variables alive.
            signature = loaded.signatures["serving_default"]
            (out,) = signature(**{name: tf.constant(x)}).values()
            return out.numpy()

        return call

    return load


def _keras(threads: int) -> Callable[[str], Function]:
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

    def load(path: str) -> Function:
        model = keras.models.load_model(path)
        call = tf.function(lambda x: model(x, training=False))
        return lambda x: call(tf.constant(x)).numpy()

    return load


def _litert(threads: int) -> Callable[[str], Function]:
    import tensorflow as tf

    def load(path: str) -> Function:
        interpreter = tf.lite.Interpreter(path, num_threads=threads)
        (given,) = interpreter.get_input_details()
        (out,) = interpreter.get_output_details()
        sized: list[int] = []

        def call(x: np.ndarray) -> np.ndarray:
            if sized != [len(x)]:
                interpreter.resize_tensor_input(given["index"], x.shape)
                interpreter.allocate_tensors()
                sized[:] = [len(x)]
            interpreter.set_tensor(given["index"], x)
            interpreter.invoke()
            return interpreter.get_tensor(out["index"])

        return call

    return load


def _onnx(threads: int) -> Callable[[str], Function]:
    import onnxruntime

    def load(path: str) -> Function:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options)
        (given,) = session.get_inputs()
        return lambda x: session.run(None, {given.name: x})[0]

    return load


RUNTIMES = {
    "saved_model": _saved_model,
    "keras": _keras,
    "litert": _litert,
    "onnx": _onnx,
}
"""By name: starts a runtime with so many threads, then loads a file."""


def _seconds(function: Function, x: np.ndarray, calls: int) -> list[float]:
    for _ in range(_WARM_UP):
        function(x)
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        function(x)
        times.append(time.perf_counter() - begun)
    return times


def _resident() -> int | None:
    """Returns the memory in use, and forgets how much it has been at most."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _peak() -> int | None:
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(name)]
    return int(found[0]) * 1024 if found else None


if __name__ == "__main__":
    main(sys.argv[1:])
