"""tf_lottery: lottery tickets for any Keras 3 model on TensorFlow.

Finds winning tickets (Frankle & Carbin 2019, arXiv:1803.03635), proves that
they win, and hands them on. Names are loaded when they are used, so that
importing the package costs nothing and changes nothing.
"""

import importlib
from typing import Any

from tf_lottery.core.version import __version__

_HOME = {
    "Duration": "core.duration",
    "Masks": "core.masks",
    "MaskedConv2D": "masking.layers",
    "MaskedDense": "masking.layers",
    "Ticket": "lottery.ticket",
    "TicketSearch": "ticket_search",
    "build_model": "models",
    "find_tickets": "lottery.search",
    "get_masks": "masking",
    "load_dataset": "data",
    "mask_model": "masking",
    "masked_optimizer": "masking",
    "prune": "pruning",
    "run_experiment": "experiment",
    "set_masks": "masking",
    "strip_masks": "masking",
    "summary": "masking",
}
_MODULES = {
    "analysis": "analysis",
    "controls": "controls",
    "export": "export",
    "pruning": "pruning",
    "stability": "lottery.stability",
    "tfmot": "tfmot",
}

__all__ = ["__version__", *sorted([*_HOME, *_MODULES])]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"tf_lottery.{_MODULES[name]}")
    if name in _HOME:
        module = importlib.import_module(f"tf_lottery.{_HOME[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'tf_lottery' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
