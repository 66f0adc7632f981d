"""Settings of an experiment, and their defaults."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tf_lottery.core import registry
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError

if TYPE_CHECKING:  # It imports SciPy: too slow for `tf-lottery list`.
    from tf_lottery.analysis.looks import Looks


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of an experiment; every one has a default.

    Attributes:
        model: Name of a model.
        model_options: Further arguments of `models.build_model`.
        dataset: Name of a data set.
        augmentation: How training images are augmented: a name of
            `data.augmentation.AUGMENTATIONS`.
        optimizer: Name of a Keras optimizer.
        learning_rate: Its learning rate, > 0.
        momentum: Momentum of the optimizer `"sgd"`, in [0, 1).
        warmup: How long the learning rate rises, linearly from 0.
        milestones: Lengths of training after which the rate falls to a tenth.
        weight_decay: λ of the penalty λ/2 · ||w||² on kernels, >= 0: the
            weight decay of He et al. 2016, not that of AdamW.
        batch_size: Examples a step, >= 1.
        length: How long each network trains.
        evaluate_every: Steps between evaluations, >= 1.
        levels: Pruning rounds, >= 0.
        rate: Fraction of the remaining weights to prune each round, in [0, 1).
        rates: Role or glob pattern of kernel paths, to the rate of these
            kernels.
        criterion: Name of what scores weights.
        allocation: Name of how the weights to keep are divided among kernels.
        schedule: `"geometric"` or `"one_shot"`.
        rewind: The point of training that tickets restart from; `"auto"`: the
            first stable one.
        rewind_mode: What is set back there: `"weights"`, `"learning_rate"` or
            `"nothing"`.
        controls: Names of the controls, trained at every level.
        replicates: How often the search is repeated, each time with its own
            seed: a number, or `"5:8"` for 5, and 8 if those do not decide.
        seed: The seed that all replicates' seeds derive from, >= 0.
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
        """The numbers of replicates at which the run is judged."""
        from tf_lottery.analysis.looks import Looks

        return Looks.parse(self.replicates)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the settings that determine each network's result.

        It holds only settings that differ from the default, so that a setting
        added later does not change older runs (as open_lth does). Levels,
        replicates and controls are left out, because a run may grow by them.
        """
        grows = ("levels", "replicates", "controls")
        return {
            field.name: json.loads(json.dumps(getattr(self, field.name)))
            for field in dataclasses.fields(self)
            if field.name not in grows
            and getattr(self, field.name) != _default(field)
        }

    def training(self) -> dict[str, Any]:
        """Returns the settings that determine how a network is trained.

        Runs with equal ones can share networks that start from the same state
        under the same masks.
        """
        return {
            name: value
            for name, value in self.fingerprint().items()
            if name not in _PRUNING
        }

    @property
    def digest(self) -> str:
        """The first 12 digits of SHA-256 over the fingerprint."""
        return _digest(self.fingerprint())

    @property
    def training_digest(self) -> str:
        """The first 12 digits of SHA-256 over the training settings."""
        return _digest(self.training())

    def replace(self, settings: Mapping[str, Any]) -> "Config":
        """Returns the configuration with some settings changed.

        Args:
            settings: Name to value. Text is parsed if the setting is not text
                (`"0.1"`, `'{"output": 0.1}'`, `"reinit,shuffle"`).

        Raises:
            UserError: A name is unknown, or a value has another type.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}
        changed = {}
        for name, value in settings.items():
            default = _default(registry.get(fields, name, "setting"))
            changed[name] = _parse(name, value, type(default))
        return dataclasses.replace(self, **changed)


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


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _parse(name: str, value: Any, kind: type) -> Any:
    """Returns a setting's value, parsed from text if it is text."""
    if name == "replicates":
        from tf_lottery.analysis.looks import Looks

        looks = Looks.parse(value)
        return str(looks) if looks.is_sequential else looks.last
    parse, form = _PARSERS[kind]
    try:
        parsed = parse(value)
    except ValueError:
        raise UserError(f"`{name}` must be {form}; got {value!r}.") from None
    for duration in _durations(name, parsed):
        Duration(duration)  # raises if it is malformed
    return parsed


def _durations(name: str, value: Any) -> tuple[Any, ...]:
    """Returns the lengths of training that a setting holds."""
    if name == "milestones":
        return value
    if name in ("length", "warmup") or (name == "rewind" and value != "auto"):
        return (value,)
    return ()


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _instance(value: Any, *kinds: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError
    return value


def _parse_names(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [name for name in value.split(",") if name]
    return tuple(_instance(value, list, tuple))


_PARSERS: dict[type, tuple[Callable[[Any], Any], str]] = {
    int: (lambda value: _instance(_from_json(value), int), "a whole number"),
    float: (
        lambda value: float(_instance(_from_json(value), int, float)),
        "a number",
    ),
    str: (lambda value: _instance(value, str), "text"),
    dict: (
        lambda value: _instance(_from_json(value), dict),
        'a mapping such as {"output": 0.1}',
    ),
    tuple: (_parse_names, "names, separated by commas"),
}
"""Type of a setting to its parser, and to the form of its values in words."""
