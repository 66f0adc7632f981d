"""Lengths of training: epochs, steps, or both."""

import dataclasses
import re

from tf_lottery.core.errors import UserError, UserTypeError

_PATTERN = re.compile(r"(?:(\d+)ep)?(?:(\d+)it)?")


@dataclasses.dataclass(frozen=True, init=False)
class Duration:
    """A length of training in epochs, steps, or both.

    Lengths are written `"160ep"`, `"500it"` or `"2ep50it"` (two epochs and
    fifty steps), so that nobody takes epochs for steps. The notation is that
    of open_lth (Frankle 2020).

    Args:
        text: The length as text, or another `Duration`.

    Raises:
        UserError: The text is not of that form.
        UserTypeError: It is a bare number, which could mean either unit.

    Example:
        >>> Duration("2ep50it").steps_at(steps_per_epoch=100)
        250
        >>> Duration("500it")
        Duration('500it')
    """

    epochs: int
    steps: int

    def __init__(self, text: "str | Duration") -> None:
        if isinstance(text, Duration):
            epochs, steps = text.epochs, text.steps
        elif not isinstance(text, str):
            raise UserTypeError(
                "A length of training is text such as '160ep', '500it' or "
                f"'2ep50it'; got {text!r}, which may mean epochs or steps."
            )
        else:
            match = _PATTERN.fullmatch(text.strip())
            if match is None or not text.strip():
                raise UserError(
                    f"{text!r} is not a length of training. Write epochs as "
                    "'160ep', steps as '500it', both as '2ep50it'."
                )
            epochs, steps = (int(part or 0) for part in match.groups())
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "steps", steps)

    def steps_at(self, steps_per_epoch: int) -> int:
        """Returns the length in steps.

        Args:
            steps_per_epoch: Training steps of one epoch, >= 1.
        """
        return self.epochs * steps_per_epoch + self.steps

    def __str__(self) -> str:
        epochs = f"{self.epochs}ep" if self.epochs else ""
        steps = f"{self.steps}it" if self.steps or not self.epochs else ""
        return epochs + steps

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"
