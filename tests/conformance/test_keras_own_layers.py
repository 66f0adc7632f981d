"""Keras' own tests of layers, with our masked layers in the place of its own.

Keras' wheel ships them. A mask of ones is the plain layer in all that a
caller can see or call, so they pass, but for those of `not_masked.txt`.
"""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

HERE = pathlib.Path(__file__).parent
KERAS = pathlib.Path(keras.__file__).parent / "src"
LONG = (
    "layers/core/dense_test.py",
    "layers/core/einsum_dense_test.py",
    "layers/core/embedding_test.py",
    "layers/core/reversible_embedding_test.py",
    "layers/convolutional/*_test.py",
    "layers/rnn/*_test.py",
    "layers/attention/*attention_test.py",
)
# These of the above take seconds.
SMOKE = (
    "layers/core/embedding_test.py",
    "layers/convolutional/separable_conv_test.py",
    "layers/rnn/simple_rnn_test.py",
)


def not_masked():
    """The tests that fail on purpose, each with the reason."""
    reasons, reason = {}, ""
    for line in (HERE / "not_masked.txt").read_text().splitlines():
        if line.startswith("# "):
            reason = line.removeprefix("# ")
        elif line:
            reasons[line] = reason
    return reasons


def outcomes(patterns, tmp_path):
    """Runs Keras' tests in a process of their own; test to outcome."""
    files = sorted(f for p in patterns for f in KERAS.glob(p))
    assert files
    found = tmp_path / "outcomes.json"
    paths = [str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=no"),
            *("-c", os.devnull, f"--rootdir={KERAS}"),
            *("-p", "no:cacheprovider", "-p", "masked_keras"),
            *map(str, files),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "MASKED_KERAS_OUTCOMES": str(found),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.exists(), done.stdout + done.stderr
    # Node ids are relative to where pytest was started.
    return {
        test[test.index("layers/") :]: outcome
        for test, outcome in json.loads(found.read_text()).items()
    }


def assert_only_those_of_the_list_fail(found, at_least):
    assert list(found.values()).count("passed") >= at_least
    failed = {test for test, outcome in found.items() if outcome == "failed"}
    listed = not_masked()
    # Other versions of Keras have other tests.
    known = {test for test in listed if found.get(test, "skipped") != "skipped"}
    assert sorted(failed - known) == []
    assert sorted(known - failed) == []


def test_every_test_that_fails_on_purpose_has_a_reason():
    assert all(len(reason) > 20 for reason in not_masked().values())


@pytest.mark.slow
def test_some_of_keras_own_tests_pass_with_masked_layers(tmp_path):
    assert_only_those_of_the_list_fail(outcomes(SMOKE, tmp_path), 30)


@pytest.mark.slow
def test_keras_own_tests_pass_with_masked_layers(tmp_path):
    assert_only_those_of_the_list_fail(outcomes(LONG, tmp_path), 500)
