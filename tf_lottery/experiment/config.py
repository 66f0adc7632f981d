"""This module knows the settings of an experiment, and their defaults."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_lottery.core import registry
from tf_lottery.core.duration import Duration

if TYPE_CHECKING:  # It imports SciPy: too slow for `tf-lottery list`.
    from tf_lottery.analysis.looks import Looks


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of an experiment; every one has a default.

    Attributes:
        model: Name of a model.
        model_options: What else `models.build_model` takes for it.
        dataset: Name of a data set.
        augmentation: What happens to training images; a name of
            `data.augmentation.AUGMENTATIONS`.
        optimizer: Name of a Keras optimizer.
        learning_rate: Its learning rate, > 0.
        momentum: Of the optimizer `"sgd"`, in [0, 1).
        warmup: How long the learning rate rises, linearly from 0.
        milestones: After which lengths it falls to a tenth.
        weight_decay: λ of the penalty λ/2 · ||w||² on kernels, >= 0: the
            weight decay of He et al. 2016, not that of AdamW.
        batch_size: Examples a step.
        length: How long each network trains.
        evaluate_every: Steps between evaluations.
        levels: Pruning rounds.
        rate: Fraction of the survivors that goes each round.
        rates: Role or glob pattern of kernel paths to a rate of its own.
        criterion: What scores weights.
        allocation: How the budget is shared among kernels.
        schedule: `"geometric"` or `"one_shot"`.
        rewind: What tickets restart from: θ at this point of training;
            `"auto"`: at the first stable one.
        rewind_mode: What goes back there: `"weights"`, `"learning_rate"` or
            `"nothing"`.
        controls: Names of the controls, trained at every level.
        replicates: How often everything is done, under seeds of their own: a
            number, or `"5:8"` for 5, and 8 if those do not decide.
        seed: The seed from which those of all replicates derive.
        initial_weights: File or checkpoint with initial weights; "" draws them.
    """

    model: str = "lenet_300_100"
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dataset: str = "mnist"
    augmentation: str = "none"
    optimizer: str = "adam"
    learning_rate: float = 1.2e-3
    momentum: float = 0.0
    warmup: str = "0it"
    milestones: tuple[str, ...] = ()
    weight_decay: float = 0.0
    batch_size: int = 60
    length: str = "50000it"
    evaluate_every: int = 100
    levels: int = 15
    rate: float = 0.2
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    criterion: str = "magnitude"
    allocation: str = "layerwise"
    schedule: str = "geometric"
    rewind: str = "0it"
    rewind_mode: str = "weights"
    controls: tuple[str, ...] = ("reinit",)
    replicates: int | str = 1
    seed: int = 0
    initial_weights: str = ""

    @property
    def looks(self) -> "Looks":
        """At how many replicates the run is judged."""
        from tf_lottery.analysis.looks import Looks

        return Looks.parse(self.replicates)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the settings that determine each network's result.

        Only those that differ from the default, so that a setting added later
        changes no run that does not use it (as open_lth does). How many
        levels, replicates and controls there are is left out: a run may grow.
        """
        grows = ("levels", "replicates", "controls")
        return {
            field.name: json.loads(json.dumps(getattr(self, field.name)))
            for field in dataclasses.fields(self)
            if field.name not in grows
            and getattr(self, field.name) != _default(field)
        }

    def training(self) -> dict[str, Any]:
        """Returns those of them that determine how a network is trained.

        Runs that share these share networks that start alike: pruning says
        only which networks there are.
        """
        return {
            name: value
            for name, value in self.fingerprint().items()
            if name not in _PRUNING
        }

    @property
    def digest(self) -> str:
        """The first 12 digits of SHA-256 over the identity."""
        text = json.dumps(self.fingerprint(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def replace(self, settings: Mapping[str, Any]) -> "Config":
        """Returns the configuration with some settings changed.

        Args:
            settings: Name to value; text is read as JSON where the setting is
                no text (`"0.1"`, `'{"output": 0.1}'`, `"reinit,shuffle"`).

        Raises:
            ValueError: A name is unknown, or a value of another type.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}
        changed = {}
        for name, value in settings.items():
            default = _default(registry.get(fields, name, "setting"))
            changed[name] = _read(name, value, type(default))
        return dataclasses.replace(self, **changed)


_AUTO = "rewind", "auto"
_PRUNING = frozenset(
    {
        "rate",
        "rates",
        "criterion",
        "allocation",
        "schedule",
        "rewind",
        "rewind_mode",
    }
)


def _default(field: dataclasses.Field) -> Any:
    return getattr(Config(), field.name)


def _read(name: str, value: Any, kind: type) -> Any:
    if name == "replicates":
        from tf_lottery.analysis.looks import Looks

        looks = Looks.parse(value)
        return str(looks) if looks.is_sequential else looks.last
    if kind is tuple and isinstance(value, str):
        return tuple(part for part in value.split(",") if part)
    if isinstance(value, str) and kind is not str:
        try:
            value = json.loads(value)
        except ValueError:
            raise _wrong(name, value, kind) from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(name, value, kind)
    if name in ("length", "rewind", "warmup") and (name, value) != _AUTO:
        Duration(str(value))
    if name == "milestones" and isinstance(value, tuple):
        for length in value:
            Duration(length)
    return value


def _wrong(name: str, value: Any, kind: type) -> ValueError:
    forms = {
        int: "a whole number",
        float: "a number",
        str: "text",
        dict: 'a mapping such as {"output": 0.1}',
        tuple: "names, separated by commas",
    }
    return ValueError(f"`{name}` must be {forms[kind]}; got {value!r}.")
