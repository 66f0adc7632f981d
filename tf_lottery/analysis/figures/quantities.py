"""Columns of results.csv that figures show against density."""

import dataclasses

from tf_lottery.analysis.deciding import Deciding


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number of every network.

    Attributes:
        label: Label of the axis.
        column: Column of results.csv.
        caption: Sentence for the caption, with the paper's figure.
        scale: Factor from the column to the axis.
        form: Format string of a value.
        unit: Unit of a value, with a space before it.
        bound: Column that is above 0 if the value is only a lower bound; empty
            if there is no such column.
        bound_caption: Sentence on such points.
    """

    label: str
    column: str
    caption: str
    scale: float = 1.0
    form: str = "{:,.0f}"
    unit: str = " steps"
    bound: str = ""
    bound_caption: str = ""

    @property
    def counts_steps(self) -> bool:
        """Whether the unit is steps."""
        return self.unit == " steps"

    def text(self, value: float) -> str:
        """Returns a value as text, without its unit.

        Args:
            value: Value on the axis.
        """
        return self.form.format(value)


_EARLY_STOP = Quantity(
    "early-stop step",
    "early_stop_step",
    "Early-stop step, that of minimum validation loss, against weights "
    "remaining (Figs. 1 left, 4a and 5).",
)
_CATCH_UP = Quantity(
    "catch-up step",
    "catch_up_step",
    "Catch-up step, the first at which a network's validation loss is at or "
    "below the dense network's minimum, against weights remaining; that of "
    "the dense network is its early-stop step (not in the paper).",
    bound="never_caught_up",
    bound_caption="Hollow points: at least one network never caught up; it "
    "counts as the length of training, so the true step is later.",
)


def of(metric: Deciding) -> dict[str, Quantity]:
    """Returns the quantities of a run, by the name of their figure.

    Args:
        metric: Deciding metric of the run. If it is a loss, the figures show
            losses, because the run measured no accuracy.
    """
    steps = {"early_stop_step": _EARLY_STOP, "catch_up_step": _CATCH_UP}
    return steps | (_accuracies(metric) if metric.is_fraction else _losses())


def scale(metric: Deciding) -> float:
    """Returns the factor from a metric to its axis: 100 for fractions.

    Args:
        metric: Deciding metric of the run.
    """
    return 100.0 if metric.is_fraction else 1.0


def title(split: str, metric: Deciding) -> str:
    """Returns the name of a metric on a split, in words.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        metric: Deciding metric of the run.
    """
    return f"{split} {metric.title}"


def label(split: str, metric: Deciding) -> str:
    """Returns the axis label of a metric on a split.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        metric: Deciding metric of the run.
    """
    unit = " (%)" if metric.is_fraction else ""
    return f"{title(split, metric)}{unit}"


def _losses() -> dict[str, Quantity]:
    def at_early_stop(split: str, caption: str) -> Quantity:
        column = f"{split}_loss_at_early_stop"
        axis = f"{split} loss at early stop"
        return Quantity(axis, column, caption, 1.0, "{:.4g}", "")

    return {
        "loss": at_early_stop(
            "test",
            "Test loss at the early-stop step; the run has no accuracy (in "
            "place of Figs. 1 right, 4a and 5).",
        ),
        "validation_loss": at_early_stop(
            "validation",
            "Validation loss at the early-stop step, by which tickets are "
            "judged; the run has no accuracy.",
        ),
    }


def _accuracies(metric: Deciding) -> dict[str, Quantity]:
    name = metric.name.replace("_", " ")

    def share(axis: str, column: str, caption: str) -> Quantity:
        return Quantity(f"{axis} (%)", column, caption, 100, "{:.2f}", " %")

    return {
        "accuracy": share(
            f"test {name} at early stop",
            metric.column("test"),
            f"Test {name} at the early-stop step (Figs. 1 right, 4a and 5).",
        ),
        "accuracy_at_end": share(
            f"test {name} at the end",
            f"test_{metric.name}",
            f"Test {name} at the end of training (Fig. 4b).",
        ),
        "train_accuracy": share(
            f"training {name} at the end",
            f"train_{metric.name}",
            f"Training {name} at the end of training (Figs. 5, 12 and 13): "
            "where it is 100 % for all, what tickets gain on test data is "
            "generalization.",
        ),
        "validation_accuracy": share(
            f"validation {name} at early stop",
            metric.column("validation"),
            f"Validation {name} at the early-stop step, by which tickets are "
            "judged (as in App. G and H).",
        ),
    }
