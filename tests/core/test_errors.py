"""Messages that quote a stranger's file."""

import pickle

import pytest

from tf_lottery.core import errors

HOSTILE = "\x1b[2J\x07\x9b\u202e\ud800"
HARMLESS = r"\x1b[2J\x07\x9b\u202e\ud800"


@pytest.mark.parametrize(
    "kind",
    [
        errors.UserError,
        errors.UserTypeError,
        errors.MissingFileError,
        errors.MissingPackageError,
    ],
)
def test_no_message_of_ours_holds_what_a_terminal_obeys(kind):
    error = kind(f"No {HOSTILE}.\n\tNothing.")
    assert str(error) == f"No {HARMLESS}.\n\tNothing."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_reason_in_a_message_holds_none_either():
    assert errors.one_line(ValueError(HOSTILE)) == HARMLESS


def test_text_of_other_languages_stays():
    assert errors.printable("naïve 学習 θ₀ → ½") == "naïve 学習 θ₀ → ½"
