"""Lets XLA keep what it compiled, for all tests and processes. Import first.

TensorFlow reads the setting when it is imported. A third of the time of the
tests was compilation of programs that another test had compiled before.
"""

import importlib.metadata
import os
import pathlib

_FOLDER = pathlib.Path(__file__).parents[2] / ".pytest_cache" / "xla"

os.environ.setdefault(
    "TF_XLA_FLAGS",
    "--tf_xla_persistent_cache_directory="
    f"{_FOLDER / importlib.metadata.version('tensorflow')}",
)
