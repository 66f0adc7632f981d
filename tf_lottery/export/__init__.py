"""This package knows how tickets leave the house."""

from tf_lottery.export.saved_model import saved_model

__all__ = ["saved_model"]
