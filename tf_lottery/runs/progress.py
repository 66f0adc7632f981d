"""Progress of a run: a bar, lines, and an estimate of its time."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import tqdm

from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import Diverged


class Progress:
    """A bar over all steps of a run, and a line for each trained network.

    The bar shows on a terminal only; the lines everywhere. A log file or a
    notebook, which would keep every state of a bar, gets a line a minute.

    Args:
        steps: Steps of the whole run.
        verbose: Whether to show anything.
        replicates: How many there are; of one alone nobody need be told.
        evaluated: Called with the replicate, a ticket, the step and the
            figures of each evaluation.
        every: Seconds between the lines that stand for the bar.
        settles: Seconds of training after which the time of the whole run is
            estimated, and said if it is more than a minute.
    """

    def __init__(
        self,
        steps: int,
        verbose: bool = True,
        replicates: int = 1,
        evaluated: Callable[[int, Ticket, int, Mapping[str, float]], None]
        | None = None,
        every: float = 60.0,
        settles: float = 5.0,
    ) -> None:
        self._evaluated = evaluated
        self._verbose, self._replicates = verbose, replicates
        self._steps: dict[tuple[int, int, str], int] = {}
        self._done, self._every, self._said = 0, every, time.monotonic()
        self._settles: float | None = settles
        self._began: float | None = None
        self._bar = tqdm.tqdm(
            total=steps,
            unit=" steps",
            unit_scale=True,
            disable=None if verbose else True,
            file=sys.stderr,
            smoothing=0.05,
        )

    def advance(
        self,
        replicate: int,
        ticket: Ticket,
        step: int,
        figures: Mapping[str, float],
    ) -> None:
        """Says that the training of a network reached a step.

        The first step told of is where training begins, or goes on from.
        """
        name = replicate, ticket.level, ticket.variant
        if name not in self._steps:
            # Steps not taken now must not count as fast ones.
            self._bar.total -= step
            self._bar.set_description(self._named(replicate, ticket))
            self._bar.refresh()
        else:
            self._done += step - self._steps[name]
            self._bar.update(step - self._steps[name])
        self._steps[name] = step
        self._estimate()
        if self._evaluated and figures:
            self._evaluated(replicate, ticket, step, figures)
        if "validation_loss" in figures:
            self._bar.set_postfix_str(
                f"validation loss {figures['validation_loss']:.4f}"
            )
        if self._bar.disable and time.monotonic() - self._said >= self._every:
            where = f"{self._named(replicate, ticket)}  step {step:>7,}"
            share = min(1, self._done / max(1, self._bar.total))
            self.say(f"{where}  {share:.0%} of the run's steps")

    def _estimate(self) -> None:
        """Says once how long the run will take, as soon as that is known."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        if self._settles is None or now - self._began < self._settles:
            return
        if not self._done or now == self._began:
            return
        self._settles = None
        rate = self._done / (now - self._began)
        minutes = (self._bar.total - self._done) / rate / 60
        if minutes > 1:
            self.say(
                f"At {rate:,.0f} steps a second this takes about "
                f"{minutes:,.0f} minutes more. Fewer levels, controls, "
                "replicates or epochs take less."
            )

    def kept(
        self, replicate: int, ticket: Ticket, metrics: Mapping[str, Any]
    ) -> None:
        """Says that a network was trained earlier."""
        self._bar.total -= metrics["steps"]
        self._bar.refresh()
        self._write(replicate, ticket, metrics, "kept from before")

    def end(
        self, replicate: int, ticket: Ticket, metrics: Mapping[str, Any]
    ) -> None:
        """Says what a network came to."""
        seconds = f"{metrics['seconds']:.1f} s"
        self._write(replicate, ticket, metrics, seconds)

    def diverged(
        self,
        replicate: int,
        ticket: Ticket,
        outcome: Diverged,
        untrained: str = "",
    ) -> None:
        """Says that a network diverged, and what will be missing for it.

        Args:
            replicate: The replicate it belongs to.
            ticket: What was trained.
            outcome: How it ended.
            untrained: Which networks are not trained because of it.
        """
        name = f"Level {ticket.level} {ticket.variant}"
        if self._replicates > 1:
            name += f" of replicate {replicate}"
        ends = f"Not trained because of it: {untrained or 'nothing else'}."
        self.say(f"{name} diverged. {outcome} {ends}")

    def expect(self, steps: int) -> None:
        """Says that there is more to do than was known, or less: < 0."""
        self._bar.total += steps
        self._bar.refresh()

    def say(self, line: str) -> None:
        """Says something in a line of its own."""
        self._said = time.monotonic()
        if self._verbose:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        self._bar.close()

    def _write(
        self,
        replicate: int,
        ticket: Ticket,
        metrics: Mapping[str, Any],
        how: str,
    ) -> None:
        self.say(f"{self._line(replicate, ticket, metrics)}  {how}")

    def _named(self, replicate: int, ticket: Ticket) -> str:
        name = f"level {ticket.level:>2}  {ticket.variant:<8}"
        several = self._replicates > 1
        return f"replicate {replicate}  {name}" if several else name

    def _line(
        self, replicate: int, ticket: Ticket, metrics: Mapping[str, Any]
    ) -> str:
        parts = [self._named(replicate, ticket)]
        parts.append(f"density {100 * ticket.density:6.2f} %")
        if "early_stop_step" in metrics:
            parts.append(f"early stop {metrics['early_stop_step']:>7,}")
        return "  ".join([*parts, *_told(metrics)])


def _told(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the deciding metric as text: on test data, else on validation."""
    metric = metrics.get("deciding_metric", "accuracy")
    for split in ("test", "validation"):
        for when in ("_at_early_stop", ""):
            value = metrics.get(f"{split}_{metric}{when}")
            if value is None:
                continue
            told = f"{value:.4g}"
            if metric != "loss":
                told = f"{100 * value:.2f} %"
            return [f"{split} {metric.replace('_', ' ')} {told}"]
    return []
