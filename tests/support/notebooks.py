"""Executes notebooks.

    python tests/support/notebooks.py colab/*.ipynb

executes notebooks and keeps in them what they put out.
"""

import os
import pathlib
import sys
import tempfile

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def executed(path, folder):
    """Returns a notebook as it stands after its cells ran in a folder.

    In a fresh kernel that imports tf_lottery from this checkout. What
    TensorFlow's C++ code says goes to the terminal, as on Colab.
    """
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(name, folder), name)
