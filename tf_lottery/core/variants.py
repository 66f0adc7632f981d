"""Names of variants: a control, and which draw of it, such as "reinit.2"."""

import re

from tf_lottery.core.errors import UserError


def name(control: str, draw: int) -> str:
    """Returns the name of a control's draw; the first has no number.

    Args:
        control: The control's name.
        draw: Number of the draw, >= 1.

    Example:
        >>> name("reinit", 1), name("reinit", 2)
        ('reinit', 'reinit.2')
    """
    return control if draw == 1 else f"{control}.{draw}"


def control_of(variant: str) -> str:
    """Returns the control that a variant is a draw of.

    Args:
        variant: Name of a variant. The name of a run in a sweep, such as
            `"rate=0.2"`, is returned unchanged.

    Example:
        >>> control_of("reinit.12"), control_of("reinit")
        ('reinit', 'reinit')
        >>> control_of("rate=0.2")
        'rate=0.2'
    """
    return variant if "=" in variant else re.sub(r"\.\d+$", "", variant)


def parse_draws(setting: str) -> tuple[str, int]:
    """Returns the control and the number of draws that a setting asks for.

    Args:
        setting: A control's name, or name and number such as `"reinit*3"`.

    Raises:
        UserError: The number is not a whole number of 1 or more.

    Example:
        >>> parse_draws("reinit*3"), parse_draws("reinit")
        (('reinit', 3), ('reinit', 1))
    """
    control, times, count = setting.partition("*")
    if times and not re.fullmatch("[1-9][0-9]*", count):
        raise UserError(
            f"The number of draws of a control is a whole number of 1 or more, "
            f"as in 'reinit*3'; got {setting!r}."
        )
    return control, int(count or 1)
