"""Densities as they are shown: text in a terminal, bars in a notebook."""

import re
import xml.etree.ElementTree

import keras
import numpy as np
import pytest

from tf_lottery import masking
from tf_lottery.core.density_table import Row, Table
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import State

L = keras.layers
MASKS = Masks(
    {"<fc1>/kernel": np.eye(4), "fc2/kernel": np.ones((2, 3), np.uint8)}
)


def bars(table):
    """The densities in per cent, of a table that is well-formed."""
    shown = table._repr_html_()
    text = xml.etree.ElementTree.fromstring(shown).text
    assert not re.search("src|href|script|class=|id=", shown)
    return re.findall(r"([\d.]+) % [ ▏▎▍▌▋▊▉█]{10} │", text)


@pytest.mark.parametrize(
    ("kept", "bar"),
    [(0, ""), (1, "▏"), (125, "█▎"), (500, "█████"), (1_000, "█" * 10)],
)
def test_a_bar_is_as_long_as_a_density_and_shows_the_smallest(kept, bar):
    table = Table("t", (), (Row((), kept, 1_000),))
    line = repr(table).splitlines()[4]
    assert line.rstrip("│ ").endswith(f"{kept / 10:.2f} % {bar}".rstrip())
    assert bars(table) == [f"{kept / 10:.2f}"]


def test_masks_show_each_kernel_and_escape_its_name():
    assert bars(MASKS) == ["25.00", "100.00"]
    shown = MASKS._repr_html_()
    assert "&lt;fc1&gt;/kernel" in shown
    assert "<fc1>" not in shown
    assert "(4, 4)" in shown
    assert repr(MASKS) in shown


def test_a_ticket_is_told_in_one_line_without_its_arrays():
    origin = State(7, {p: np.zeros(m.shape) for p, m in MASKS.items()}, {})
    metrics = {"test_accuracy": 0.98125, "steps": 2_000, "note": ["<i>"]}
    ticket = Ticket(3, MASKS, origin, "reinit", metrics=metrics, dense_size=40)
    assert repr(ticket) == (
        "Ticket(level 3, 'reinit', 10 of 40 weights kept, density 0.25, "
        "restarts from step 7)"
    )
    assert bars(ticket) == ["25.00", "100.00"]
    shown = ticket._repr_html_()
    assert "test accuracy 0.9812; steps 2,000" in shown
    assert "<i>" not in shown


def rows(table):
    """The cells of a summary by layer."""
    return {
        row.cells[0]: (*row.cells[1:], row.kept, row.size) for row in table.rows
    }


def test_a_summary_counts_what_masks_keep_of_each_layer():
    image = keras.Input((6, 6, 2))
    encoder = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(2, 3), L.BatchNormalization()],
        name="encoder",
    )
    x = L.Dropout(0.5)(L.Flatten()(encoder(image)))
    model = masking.mask_model(keras.Model(image, L.Dense(3)(x)))
    masks = {p: np.zeros(s) for p, s in masking.get_masks(model).shapes.items()}
    masks["dense/kernel"][:8, 0] = 1
    masking.set_masks(model, Masks(masks))
    table = masking.summary(model)
    found = rows(table)
    conv, dense = 3 * 3 * 2 * 2, 32 * 3
    assert found["encoder/conv2d (Conv2D)"] == (
        *("(None, 4, 4, 2)", "38"),
        *(0, conv),
    )
    assert found["dense (Dense)"] == ("(None, 3)", "99", 8, dense)
    # Scale, offset, and moving statistics.
    norm = found["encoder/batch_normalization (BatchNormalization)"]
    assert norm == ("(None, 4, 4, 2)", "8", None, 0)
    assert found["dropout (Dropout)"] == ("(None, 32)", "0", None, 0)
    assert not any(name.startswith("encoder (") for name in found)
    assert table.notes == (
        f"Params: 145; in kernels: {conv + dense}, of which 8 are kept "
        "(6.06 %).",
    )
    assert bars(table) == ["0.00", "8.33"]


def test_params_of_a_summary_are_those_of_the_plain_model(build):
    model = build()
    table = masking.summary(masking.mask_model(model))
    counts = [int(row.cells[2].replace(",", "")) for row in table.rows]
    assert sum(counts) == model.count_params()


def test_layers_of_many_kernels_are_one_line():
    keras.utils.clear_session()  # names begin anew
    x = keras.Input((5, 8))
    y = L.LSTM(3)(L.MultiHeadAttention(2, 4)(x, x))
    found = rows(masking.summary(keras.Model(x, y)))
    attention = found["multi_head_attention (MultiHeadAttention)"]
    assert attention == ("(None, 5, 8)", "288", 256, 256)
    assert found["lstm (LSTM)"] == ("(None, 3)", "144", 132, 132)


def test_a_summary_opens_subclassed_models_and_names_what_is_frozen():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = L.Dense(3, trainable=False), L.Dense(2)
            self.scale = self.add_weight(shape=(2,), name="scale")

        def call(self, x):
            return self.scale * self.last(self.first(x))

    keras.utils.clear_session()  # names begin anew
    model = Own()
    model(np.zeros((1, 4)))
    table = masking.summary(model)
    found = rows(table)
    assert found["own (Own)"] == ("?", "2", None, 0)
    assert found["dense (Dense)"] == ("?", "15", None, 0)
    assert found["dense_1 (Dense)"] == ("?", "8", 6, 6)
    assert table.notes[1].startswith("Not masked: dense/kernel: frozen")


def test_a_model_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"A Keras 3 model is needed"):
        masking.summary("model")
