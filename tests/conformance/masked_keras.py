"""A pytest plugin: Keras' own tests meet masked layers.

Every masked layer stands where `keras.src.layers` keeps the plain one. The
outcomes go to the file that `MASKED_KERAS_OUTCOMES` names, as JSON: test to
`"passed"`, `"failed"` or `"skipped"`.
"""

import json
import os
import pathlib

import keras.src.layers

from tf_lottery.masking.layers import CATALOGUE

OUTCOMES = {}

for plain, masked in CATALOGUE.items():
    if hasattr(keras.src.layers, plain.__name__):
        setattr(keras.src.layers, plain.__name__, masked)


def pytest_runtest_logreport(report):
    if report.when == "call" or not report.passed:
        OUTCOMES[report.nodeid] = report.outcome


def pytest_sessionfinish():
    path = pathlib.Path(os.environ["MASKED_KERAS_OUTCOMES"])
    path.write_text(json.dumps(OUTCOMES))
