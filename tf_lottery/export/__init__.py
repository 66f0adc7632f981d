"""Tickets and models as files for other programs."""

from tf_lottery.export import comparison
from tf_lottery.export.exported_model import plain
from tf_lottery.export.formats import FORMATS, check, write
from tf_lottery.export.interop import read_masks, write_masks
from tf_lottery.export.keras_file import keras_file
from tf_lottery.export.litert import litert, sparse_litert
from tf_lottery.export.onnx import onnx
from tf_lottery.export.saved_model import saved_model
from tf_lottery.export.shrinking import Shrunk, shrink
from tf_lottery.export.signatures import Signature, signature_of
from tf_lottery.export.sparse_saved_model import sparse_saved_model

__all__ = [
    "FORMATS",
    "Shrunk",
    "Signature",
    "comparison",
    "check",
    "keras_file",
    "litert",
    "onnx",
    "plain",
    "read_masks",
    "saved_model",
    "shrink",
    "signature_of",
    "sparse_litert",
    "sparse_saved_model",
    "write",
    "write_masks",
]
