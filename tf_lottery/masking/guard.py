"""A callback that finds the code that revives pruned weights."""

from typing import Any

import keras

from tf_lottery.core.masks import Masks
from tf_lottery.masking import models, paths


class MaskGuard(keras.callbacks.Callback):
    """Raises when a pruned weight is not zero, and names the culprit.

    It does not enforce masks: masked layers and `masked_optimizer` do. It
    checks at every event of a callback, which costs a pass over the kernels.

    Args:
        callbacks: The callbacks to run and watch, in this order. Do not pass
            them to `fit` as well.
        masks: The masks to check. None: the masks of the model's layers.
    """

    def __init__(
        self,
        callbacks: "tuple[keras.callbacks.Callback, ...]" = (),
        masks: Masks | None = None,
    ) -> None:
        super().__init__()
        self._watched, self._masks = tuple(callbacks), masks

    def set_params(self, params: Any) -> None:
        """Passes the parameters of `fit` to the callbacks."""
        super().set_params(params)
        for callback in self._watched:
            callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Passes the model to the callbacks."""
        super().set_model(model)
        for callback in self._watched:
            callback.set_model(model)

    def _run(self, event: str, *args: Any, **kwargs: Any) -> None:
        before = "the training step, or a callback outside the guard,"
        self._check(f"{before} before {event}")
        for callback in self._watched:
            getattr(callback, event)(*args, **kwargs)
            cls = type(callback)
            self._check(f"{cls.__module__}.{cls.__qualname__}.{event}")

    def _check(self, culprit: str) -> None:
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
                    f"zero: {culprit} set them. Pruned weights stay at zero: "
                    "assign weight * mask."
                )


def _method(event: str) -> Any:
    def method(guard: MaskGuard, *args: Any, **kwargs: Any) -> None:
        guard._run(event, *args, **kwargs)

    return method


for _name in dir(keras.callbacks.Callback):
    if _name.startswith("on_"):
        setattr(MaskGuard, _name, _method(_name))
