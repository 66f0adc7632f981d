"""This module knows how to write down what determines a run, or ran it."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import keras
import tensorflow as tf


def digest(text: str | None) -> str | None:
    """Returns SHA-256 of a text; None of None."""
    return text and hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of the packages that the results depend on."""
    names = ("tf-lottery", "tensorflow", "keras", "numpy")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def hardware() -> dict[str, str | int]:
    """Returns what this process computes on: processor, cores, GPUs."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "GPU": ", ".join(gpus) or "none",
    }


def _processor() -> str:
    """Returns the processor's name; Linux knows it better than Python."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def described(thing: Any) -> Any:
    """Returns a setting, an object or a function too, as JSON holds it."""
    if thing is None or isinstance(thing, str):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): described(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [described(value) for value in thing]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = dataclasses.fields(thing)
        return [described(getattr(thing, f.name)) for f in fields]
    if hasattr(thing, "get_config"):
        serialized = keras.saving.serialize_keras_object(thing)
        # Keras counts objects per process in their names.
        serialized["config"].pop("name", None)
        return json.loads(json.dumps(serialized, default=str))
    if callable(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return thing
