"""Masks in Keras models, layers and optimizers."""

from tf_lottery.masking.architecture import (
    architecture_of,
    layer_states,
    rebuilt,
)
from tf_lottery.masking.copies import clone_model, fresh_copy
from tf_lottery.masking.coverage import Kernel, Row, coverage_of, kernels
from tf_lottery.masking.guard import MaskGuard
from tf_lottery.masking.initializers import initializer_of, support
from tf_lottery.masking.layer_state import carry, derive, derives, restore
from tf_lottery.masking.masked_optimizer import masked_optimizer
from tf_lottery.masking.models import (
    get_masks,
    is_masked,
    mask_model,
    masks_or_ones,
    set_masks,
    strip_masks,
)
from tf_lottery.masking.paths import variables_by_path
from tf_lottery.masking.summary import summary

__all__ = [
    "Kernel",
    "MaskGuard",
    "Row",
    "architecture_of",
    "masks_or_ones",
    "carry",
    "clone_model",
    "coverage_of",
    "derive",
    "derives",
    "get_masks",
    "initializer_of",
    "is_masked",
    "kernels",
    "layer_states",
    "mask_model",
    "masked_optimizer",
    "rebuilt",
    "fresh_copy",
    "restore",
    "set_masks",
    "strip_masks",
    "summary",
    "support",
    "variables_by_path",
]
