"""Packaging of tf_lottery: dependencies, extras, the command, the data."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
DOCS = ["furo>=2025.9", "myst-parser>=5", "sphinx>=9,<10"]


def version() -> str:
    """Returns `__version__` as written in tf_lottery/core/version.py."""
    text = (HERE / "tf_lottery" / "core" / "version.py").read_text()
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("tf_lottery/core/version.py states no __version__")
    return match.group(1)


setuptools.setup(
    name="tf-lottery",
    version=version(),
    description="Lottery tickets for any Keras 3 model on TensorFlow: "
    "found, proved, handed on",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["tf_lottery", "tf_lottery.*"]),
    package_data={
        "tf_lottery.analysis.report": ["report.html.jinja"],
        "tf_lottery.data": ["mnist.npz", "MNIST_LICENSE.md"],
        "tf_lottery": ["py.typed"],
    },
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=1.4",
        "argcomplete>=3.5",
        # Carries what users define to processes.
        "cloudpickle>=3",
        # Reaches object stores; tensorflow-datasets brings it along.
        "fsspec>=2024.12",
        # tensorflow-datasets 4.9.10 imports it and forgets to say so.
        "importlib_resources>=6.0",
        "jinja2>=3.1",
        # Muon of 3.12 does not train on TensorFlow.
        "keras>=3.13,<4",
        "matplotlib>=3.8",
        # Compiles the kernel that trains sparse networks on their survivors.
        "numba>=0.61",
        "numpy>=1.26",
        "rich>=13",
        "scipy>=1.11",
        "tensorflow>=2.20,<2.22",
        "tensorflow-datasets>=4.9.9",
        "tensorflow-model-optimization>=0.8.1",
        "tf_keras>=2.20,<2.22",
        "tqdm>=4.66",
    ],
    extras_require={
        "azure": ["adlfs>=2024.12"],
        "docs": DOCS,
        "gcs": ["gcsfs>=2024.12"],
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        "ray": ["ray>=2.40"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "tf2onnx>=1.17"],
        "s3": ["s3fs>=2024.12"],
        "test": [
            *DOCS,
            "gcsfs>=2024.12",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "moto[server]>=5",
            "mypy>=1.10",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "pandas>=2.2",
            "playwright>=1.49",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ray>=2.40",
            "ruff==0.17.*",
            "s3fs>=2024.12",
            "tensorboard>=2.19",
            "tf2onnx>=1.17",
        ],
    },
    entry_points={
        "console_scripts": ["tf-lottery=tf_lottery.__main__:main"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
