"""This module knows who brought a pruned weight back."""

from typing import Any

import keras

from tf_lottery.core.masks import Masks
from tf_lottery.masking import models, paths


class MaskGuard(keras.callbacks.Callback):
    """Raises as soon as a pruned weight is not zero, and names who did it.

    It enforces nothing: masked layers and `masked_optimizer` do. It looks
    whenever Keras calls back, which costs a pass over the kernels.

    Args:
        callbacks: Those to run and to watch, in their order, in place of
            giving them to `fit`.
        masks: What must hold. None: the masks of the model's layers.
    """

    def __init__(
        self,
        callbacks: "tuple[keras.callbacks.Callback, ...]" = (),
        masks: Masks | None = None,
    ) -> None:
        super().__init__()
        self._watched, self._masks = tuple(callbacks), masks

    def set_params(self, params: Any) -> None:
        """Hands on the parameters of `fit`."""
        super().set_params(params)
        for callback in self._watched:
            callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Hands on the model."""
        super().set_model(model)
        for callback in self._watched:
            callback.set_model(model)

    def _called(self, hook: str, *args: Any, **kwargs: Any) -> None:
        before = "the training step, or a callback outside the guard,"
        self._look(f"{before} before {hook}")
        for callback in self._watched:
            getattr(callback, hook)(*args, **kwargs)
            cls = type(callback)
            self._look(f"{cls.__module__}.{cls.__qualname__}.{hook}")

    def _look(self, who: str) -> None:
        masks = self._masks
        if masks is None:
            masks = models.get_masks(self.model)
        variables = paths.variables_by_path(self.model)
        for path, mask in masks.items():
            stored = variables[path].value.numpy()
            revived = (stored != 0) & ~mask
            if revived.any():
                raise RuntimeError(
                    f"{int(revived.sum())} pruned weights of {path!r} are not "
                    f"zero: {who} set them. Pruned weights stay at zero: "
                    "assign weight * mask."
                )


def _hook(name: str) -> Any:
    def called(guard: MaskGuard, *args: Any, **kwargs: Any) -> None:
        guard._called(name, *args, **kwargs)

    return called


for _name in dir(keras.callbacks.Callback):
    if _name.startswith("on_"):
        setattr(MaskGuard, _name, _hook(_name))
