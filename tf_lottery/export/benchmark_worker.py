"""Benchmark of one exported file in one process.

    python benchmark_worker.py RUNTIME PATH X.npz OUT.npz THREADS CALLS NAMES

This script imports nothing of tf_lottery, so that the file runs as it would
elsewhere. X.npz holds one array for each input. NAMES is JSON:

- `inputs`: the names of the inputs in the structure of the Keras model's;
  null for one input.
- `outputs`: the list of the outputs' names; null for one output.
- `batch`: the fixed number of examples in a call; null for any number.

OUT.npz then holds `output_0` and so on, `[examples, ...]`; `loading`, the peak
increase of the process's memory in bytes while the file was loaded and called
once, or -1 where the system does not provide it; and `batch_1` and
`batch_256`, the seconds of each call.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

BATCHES = (1, 256)
_WARM_UP = 10

Arrays = Sequence[np.ndarray]
Function = Callable[[Arrays], list[np.ndarray]]
"""From an array for each input to an array for each output, in Keras' order."""


def main(arguments: list[str]) -> None:
    """Measures one file and writes the results.

    Args:
        arguments: The arguments of the command line.
    """
    runtime, path, x_file, out_file, threads, calls, text = arguments
    names = json.loads(text)
    with np.load(x_file) as arrays:
        x = list(arrays.values())
    if runtime in ("saved_model", "keras"):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
        tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    _import(runtime)
    before = _resident()
    function = RUNTIMES[runtime](path, names, int(threads))
    if names["batch"]:
        function = in_batches(function, names["batch"])
    function([array[:1] for array in x])
    peak = _peak()
    results: dict[str, Any] = {
        "loading": -1 if peak is None or before is None else peak - before
    }
    for batch in BATCHES:
        inputs = [np.resize(a, (batch, *a.shape[1:])) for a in x]
        results[f"batch_{batch}"] = _seconds(function, inputs, int(calls))
    for i, output in enumerate(in_batches(function, 256, pad=False)(x)):
        results[f"output_{i}"] = output
    np.savez(out_file, **results)


def in_batches(function: Function, size: int, pad: bool = True) -> Function:
    """Returns a function for any number of examples.

    Args:
        function: A function for at most `size` examples.
        size: Examples in a call, >= 1.
        pad: Whether every call needs exactly `size` examples, so that the
            last batch is padded.
    """

    def call(x: Arrays) -> list[np.ndarray]:
        parts = []
        for start in range(0, len(x[0]), size):
            part = [array[start : start + size] for array in x]
            count = len(part[0])
            if pad:
                part = [np.resize(a, (size, *a.shape[1:])) for a in part]
            parts.append([output[:count] for output in function(part)])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    return call


def _import(runtime: str) -> None:
    """Loads a runtime's packages, so that no file's memory includes them."""
    if runtime == "onnx":
        import onnxruntime  # noqa: F401
    else:
        import tensorflow  # noqa: F401
    if runtime == "keras":
        import keras  # noqa: F401


def _saved_model(
    path: str, names: Mapping[str, Any], threads: int | None
) -> Function:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    served = loaded.signatures["serving_default"]
    inputs = _flat(names["inputs"] or [*served.structured_input_signature[1]])
    returned = names["outputs"] or [*served.structured_outputs]

    def call(x: Arrays) -> list[np.ndarray]:
        # TensorFlow Serving calls the signature. A third of the time of
        # `loaded.serve` is Python's dispatch. Use `loaded`, because a
        # signature does not keep variables alive.
        signature = loaded.signatures["serving_default"]
        tensors = map(tf.constant, x)
        outputs = signature(**dict(zip(inputs, tensors, strict=True)))
        return [outputs[name].numpy() for name in returned]

    return call


def _keras(
    path: str, names: Mapping[str, Any], threads: int | None, **options: Any
) -> Function:
    import keras
    import tensorflow as tf

    model = keras.models.load_model(path, compile=False, **options)
    call = tf.function(lambda x: model(x, training=False))
    inputs = names["inputs"] or ""
    order = {name: i for i, name in enumerate(_flat(inputs))}

    def run(x: Arrays) -> list[np.ndarray]:
        tensors = keras.tree.map_structure(
            lambda name: tf.constant(x[order[name]]), inputs
        )
        return [leaf.numpy() for leaf in keras.tree.flatten(call(tensors))]

    return run


def _litert(
    path: str, names: Mapping[str, Any], threads: int | None
) -> Function:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(path, num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    details = runner.get_input_details()
    inputs = _flat(names["inputs"] or [*details])
    input_indices = [details[name]["index"] for name in inputs]
    details = runner.get_output_details()
    outputs = names["outputs"] or [*details]
    output_indices = [details[name]["index"] for name in outputs]
    allocated: list[tuple[int, ...]] = []

    def call(x: Arrays) -> list[np.ndarray]:
        # Not through the runner, which allocates tensors in every call.
        shapes = [array.shape for array in x]
        if allocated != shapes:
            for index, shape in zip(input_indices, shapes, strict=True):
                interpreter.resize_tensor_input(index, shape)
            interpreter.allocate_tensors()
            allocated[:] = shapes
        for index, array in zip(input_indices, x, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in output_indices]

    return call


def _onnx(path: str, names: Mapping[str, Any], threads: int | None) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options)
    inputs = _flat(names["inputs"] or [i.name for i in session.get_inputs()])

    def call(x: Arrays) -> list[np.ndarray]:
        return session.run(names["outputs"], dict(zip(inputs, x, strict=True)))

    return call


def _flat(names: Any) -> list[str]:
    """Returns the names in a structure, those of dicts sorted by key."""
    if isinstance(names, str):
        return [names]
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names)]
    return [leaf for name in names for leaf in _flat(name)]


RUNTIMES: Mapping[str, Callable[..., Function]] = {
    "saved_model": _saved_model,
    "keras": _keras,
    "litert": _litert,
    "onnx": _onnx,
}
"""By name: from path, names and threads (None for any) to a `Function`."""


def _seconds(function: Function, x: Arrays, calls: int) -> list[float]:
    for _ in range(_WARM_UP):
        function(x)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function(x)
        times.append(time.perf_counter() - start)
    return times


def _resident() -> int | None:
    """Returns the memory in use in bytes, and resets the peak."""
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
    kib = [line.split()[1] for line in lines if line.startswith(name)]
    return int(kib[0]) * 1024 if kib else None


if __name__ == "__main__":
    main(sys.argv[1:])
