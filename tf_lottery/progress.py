"""This module knows how a long run shows that it is alive."""

import sys
from collections.abc import Mapping
from typing import Any

import tqdm.auto

from tf_lottery.tickets import Ticket


class Progress:
    """A bar over all steps of a run, and a line for each trained network.

    The bar shows on a terminal only; the lines everywhere.

    Args:
        steps: Steps of the whole run.
        verbose: Whether to show anything.
    """

    def __init__(self, steps: int, verbose: bool = True) -> None:
        self._verbose = verbose
        self._step = 0
        self._bar = tqdm.auto.tqdm(
            total=steps,
            unit=" steps",
            unit_scale=True,
            disable=None if verbose else True,
            file=sys.stderr,
            smoothing=0.05,
        )

    def begin(self, ticket: Ticket) -> None:
        """Says which network trains from here on."""
        self._step = ticket.origin.step
        self._bar.set_description(f"level {ticket.level} {ticket.variant}")

    def advance(self, step: int, figures: Mapping[str, float]) -> None:
        """Says that training reached a step."""
        self._bar.update(step - self._step)
        self._step = step
        if "validation_loss" in figures:
            self._bar.set_postfix_str(
                f"validation loss {figures['validation_loss']:.4f}"
            )

    def end(
        self, ticket: Ticket, metrics: Mapping[str, Any], kept: bool
    ) -> None:
        """Says what a network came to; `kept` if it was trained earlier."""
        if kept:
            # Steps not taken now must not count as fast ones.
            self._bar.total -= metrics["steps"] - ticket.origin.step
            self._bar.refresh()
        if self._verbose:
            self._bar.write(_line(ticket, metrics, kept), file=sys.stderr)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        self._bar.close()


def _line(ticket: Ticket, metrics: Mapping[str, Any], kept: bool) -> str:
    parts = [f"level {ticket.level:>2}  {ticket.variant:<8}"]
    parts.append(f"density {100 * ticket.density:6.2f} %")
    if "early_stop_step" in metrics:
        parts.append(f"early stop {metrics['early_stop_step']:>7,}")
    for split in ("test", "validation"):
        for when in ("_at_early_stop", ""):
            name = f"{split}_accuracy{when}"
            if name in metrics:
                parts.append(f"{split} accuracy {100 * metrics[name]:.2f} %")
                break
        else:
            continue
        break
    parts.append("kept from before" if kept else f"{metrics['seconds']:.1f} s")
    return "  ".join(parts)
