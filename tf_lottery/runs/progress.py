"""Progress of a run: a bar, lines, and an estimate of its time."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import tqdm

from tf_lottery.core.errors import printable
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import Diverged


class Progress:
    """A bar over all steps of a run, and a line for each trained network.

    The bar shows on a terminal only; the lines everywhere. A log file or a
    notebook, which would keep every state of a bar, gets a line a minute.

    Args:
        steps: Training steps of the whole run.
        verbose: Whether to show anything.
        replicates: Number of replicates, >= 1. With 1, lines do not name it.
        on_evaluation: Called with the replicate, the ticket, the step and the
            metrics of each evaluation.
        line_interval: Seconds between the lines that replace the bar.
        estimate_after: Seconds of training after which the time of the whole
            run is estimated, and shown if it is more than a minute.
    """

    def __init__(
        self,
        steps: int,
        verbose: bool = True,
        replicates: int = 1,
        on_evaluation: Callable[[int, Ticket, int, Mapping[str, float]], None]
        | None = None,
        line_interval: float = 60.0,
        estimate_after: float = 5.0,
    ) -> None:
        self._on_evaluation = on_evaluation
        self._verbose, self._replicates = verbose, replicates
        # Replicate, level and variant to the step of its training.
        self._steps: dict[tuple[int, int, str], int] = {}
        self._done = 0  # steps that this process took
        self._line_interval, self._last_line = line_interval, time.monotonic()
        self._estimate_after: float | None = estimate_after
        self._start: float | None = None
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
        metrics: Mapping[str, float],
    ) -> None:
        """Shows that the training of a network reached a step.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket in training.
            step: The step, >= 0. The first call gives the step at which
                training starts or resumes.
            metrics: The metrics of the latest evaluation, or none.
        """
        network = replicate, ticket.level, ticket.variant
        if network not in self._steps:
            # Steps of an earlier process must not count as fast ones.
            self._bar.total -= step
            label = printable(self._label(replicate, ticket))
            self._bar.set_description(label)
            self._bar.refresh()
        else:
            self._done += step - self._steps[network]
            self._bar.update(step - self._steps[network])
        self._steps[network] = step
        self._estimate()
        if self._on_evaluation and metrics:
            self._on_evaluation(replicate, ticket, step, metrics)
        if "validation_loss" in metrics:
            self._bar.set_postfix_str(
                f"validation loss {metrics['validation_loss']:.4f}"
            )
        elapsed = time.monotonic() - self._last_line
        if self._bar.disable and elapsed >= self._line_interval:
            label = f"{self._label(replicate, ticket)}  step {step:>7,}"
            share = min(1, self._done / max(1, self._bar.total))
            self.write(f"{label}  {share:.0%} of the run's steps")

    def _estimate(self) -> None:
        """Shows once how long the run will take, as soon as that is known."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        elapsed = now - self._start
        if self._estimate_after is None or elapsed < self._estimate_after:
            return
        if not self._done or not elapsed:
            return
        self._estimate_after = None
        rate = self._done / elapsed
        minutes = (self._bar.total - self._done) / rate / 60
        if minutes > 1:
            self.write(
                f"At {rate:,.0f} steps a second this takes about "
                f"{minutes:,.0f} minutes more. Fewer levels, controls, "
                "replicates or epochs take less."
            )

    def restored(
        self, replicate: int, ticket: Ticket, metrics: Mapping[str, Any]
    ) -> None:
        """Shows that a network was trained earlier.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket that was trained.
            metrics: The metrics of its training.
        """
        self._bar.total -= metrics["steps"]
        self._bar.refresh()
        line = self._line(replicate, ticket, metrics)
        self.write(f"{line}  kept from before")

    def trained(
        self, replicate: int, ticket: Ticket, metrics: Mapping[str, Any]
    ) -> None:
        """Shows that a network is trained.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket that was trained.
            metrics: The metrics of its training.
        """
        line = self._line(replicate, ticket, metrics)
        self.write(f"{line}  {metrics['seconds']:.1f} s")

    def diverged(
        self,
        replicate: int,
        ticket: Ticket,
        outcome: Diverged,
        untrained: str = "",
    ) -> None:
        """Shows that a network diverged, and what is not trained therefore.

        Args:
            replicate: The replicate, >= 0.
            ticket: The ticket that was trained.
            outcome: How its training diverged.
            untrained: The networks that are not trained because of it.
        """
        name = f"Level {ticket.level} {ticket.variant}"
        if self._replicates > 1:
            name += f" of replicate {replicate}"
        ends = f"Not trained because of it: {untrained or 'nothing else'}."
        self.write(f"{name} diverged. {outcome} {ends}")

    def add_steps(self, steps: int) -> None:
        """Changes the number of steps of the whole run.

        Args:
            steps: How many more there are; negative, if there are fewer.
        """
        self._bar.total += steps
        self._bar.refresh()

    def write(self, line: str) -> None:
        """Shows a line.

        Args:
            line: The text, without a line break.
        """
        self._last_line = time.monotonic()
        if self._verbose:
            self._bar.write(printable(line), file=sys.stderr)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def _label(self, replicate: int, ticket: Ticket) -> str:
        label = f"level {ticket.level:>2}  {ticket.variant:<8}"
        several = self._replicates > 1
        return f"replicate {replicate}  {label}" if several else label

    def _line(
        self, replicate: int, ticket: Ticket, metrics: Mapping[str, Any]
    ) -> str:
        parts = [self._label(replicate, ticket)]
        parts.append(f"density {100 * ticket.density:6.2f} %")
        if "early_stop_step" in metrics:
            parts.append(f"early stop {metrics['early_stop_step']:>7,}")
        return "  ".join([*parts, *_deciding_metric(metrics)])


def _deciding_metric(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the deciding metric on test data, else on validation data."""
    metric = metrics.get("deciding_metric", "accuracy")
    for split in ("test", "validation"):
        for when in ("_at_early_stop", ""):
            value = metrics.get(f"{split}_{metric}{when}")
            if value is None:
                continue
            text = (
                f"{value:.4g}" if metric == "loss" else f"{100 * value:.2f} %"
            )
            return [f"{split} {metric.replace('_', ' ')} {text}"]
    return []
