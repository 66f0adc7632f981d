"""Experiments: settings by name, trained and stored in run directories."""

from tf_lottery.core import registry

_HOMES = {
    "Config": "config",
    "Shard": "shard",
    "expand": "sweep",
    "explain": "runner",
    "interpolate": "interpolation",
    "members": "sweep",
    "run_experiment": "runner",
    "run_sweep": "sweep",
    "unfinished": "outcome",
}

__all__ = list(_HOMES)  # noqa: PLE0605
# Names are imported on use: reading a preset or setting needs no TensorFlow.
__getattr__ = registry.lazy_attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
