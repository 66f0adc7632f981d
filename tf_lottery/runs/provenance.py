"""Provenance of a run: versions, hardware, and settings as JSON."""

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
    """Returns the SHA-256 of a text, or None for None.

    Args:
        text: The text.
    """
    return text and hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of the packages that the results depend on."""
    names = ("tf-lottery", "tensorflow", "keras", "numpy")
    installed = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def hardware() -> dict[str, str | int]:
    """Returns the hardware of this process: processor, cores, GPUs."""
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
    """Returns the processor's name, which Linux knows better than Python."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def to_json(value: Any) -> Any:
    """Returns a setting as JSON can hold it.

    Args:
        value: Any setting: also a Keras object, which is serialized; a
            function, which becomes its qualified name; a dataclass, which
            becomes a list of its fields.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [to_json(getattr(value, field.name)) for field in fields]
    if hasattr(value, "get_config"):
        serialized = keras.saving.serialize_keras_object(value)
        # Keras numbers names within a process.
        serialized["config"].pop("name", None)
        return json.loads(json.dumps(serialized, default=str))
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value
