"""This package knows how tickets leave the house."""

from tf_lottery.export.saved_model import saved_model
from tf_lottery.export.shrinking import Shrunk, shrink

__all__ = ["Shrunk", "saved_model", "shrink"]
