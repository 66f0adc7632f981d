import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_lottery.core.duration import Duration

counts = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("text", "epochs", "steps", "written"),
    [
        ("160ep", 160, 0, "160ep"),
        ("500it", 0, 500, "500it"),
        ("3ep20it", 3, 20, "3ep20it"),
        ("0it", 0, 0, "0it"),
        ("0ep", 0, 0, "0it"),
        ("0ep7it", 0, 7, "7it"),
        ("7ep0it", 7, 0, "7ep"),
        (" 007it ", 0, 7, "7it"),
    ],
)
def test_a_length_is_read_and_written_back(text, epochs, steps, written):
    length = Duration(text)
    assert (length.epochs, length.steps) == (epochs, steps)
    assert str(length) == written
    assert repr(length) == f"Duration('{written}')"
    assert Duration(length) == length


@given(counts, counts)
def test_what_is_written_reads_back_equal(epochs, steps):
    length = Duration(f"{epochs}ep{steps}it")
    assert Duration(str(length)) == length
    assert (length.epochs, length.steps) == (epochs, steps)


@given(counts, counts, st.integers(1, 10**6))
def test_steps_are_epochs_times_steps_per_epoch_and_the_rest(
    epochs, steps, per_epoch
):
    length = Duration(f"{epochs}ep{steps}it")
    assert length.steps_at(per_epoch) == epochs * per_epoch + steps


def test_equal_lengths_are_equal_keys_and_different_ones_are_not():
    assert Duration("2ep5it") == Duration("02ep05it")
    assert len({Duration("2ep"), Duration("2ep0it"), Duration("2it")}) == 2
    # Only at a given epoch length are they the same; never by themselves.
    assert Duration("1ep") != Duration("100it")
    assert Duration("1ep").steps_at(100) == Duration("100it").steps_at(100)


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "ep", "it", "5 it", "-5it", "1.5ep", "5it2ep", "5ep5ep"]
    + ["1e3it", "160EP", "160epochs", "5it,", "five it", "5it\n6it"],
)
def test_other_text_is_refused_with_the_three_forms(text):
    with pytest.raises(ValueError, match="'160ep', steps as '500it', both as"):
        Duration(text)


@pytest.mark.parametrize("value", [500, 1.5, True, None, b"5it", ["5it"]])
def test_a_bare_number_is_refused_since_it_may_mean_either_unit(value):
    with pytest.raises(TypeError, match="which may mean epochs or steps"):
        Duration(value)


def test_a_length_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Duration("5it").steps = 6
