"""A ticket file from a stranger: one line, and bounded memory."""

import os
import zipfile

import hostile_tickets
import memory
import numpy as np
import pytest

from tf_lottery.core.errors import UserError
from tf_lottery.lottery.ticket import Ticket

FLOATS = np.dtype("f4").str


def load(path):
    return Ticket.load(path)


def refused(path, most):
    """Returns the line that refuses a file, in at most this many bytes."""
    held, error = memory.peak(load, path)
    assert isinstance(error, UserError)
    line = str(error)
    assert line.isprintable()
    assert len(line) < len(str(path)) + 300
    assert held < most
    return line


def test_the_forger_can_be_honest(tmp_path):
    # Otherwise what is below would be refused for another reason.
    hostile_tickets.write(tmp_path / "t", *hostile_tickets.parts())
    ticket = load(tmp_path / "t")
    assert ticket.masks.kept == 1
    assert ticket.origin.weights["fc/kernel"].sum() == 1


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (zipfile.ZIP_BZIP2, "compressed otherwise than by deflate"),
        (zipfile.ZIP_LZMA, "compressed otherwise than by deflate"),
        (zipfile.ZIP_DEFLATED, "damaged"),
    ],
)
def test_a_few_kilobytes_do_not_fill_the_memory(tmp_path, method, reason):
    hostile_tickets.bomb(tmp_path / "t", method)
    assert os.path.getsize(tmp_path / "t") < 400_000
    assert reason in refused(tmp_path / "t", 16 * 2**20)


def test_a_list_of_a_million_entries_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "t", "w") as file:
        file.writestr("a", b"")
    data = (tmp_path / "t").read_bytes()
    local, rest = data.split(b"PK\x01\x02")
    central, end = rest.split(b"PK\x05\x06")
    central = b"PK\x01\x02" + central
    size = (10**6 * len(central)).to_bytes(4, "little")
    end = b"PK\x05\x06" + end[:8] + size + end[12:]
    (tmp_path / "t").write_bytes(local + 10**6 * central + end)
    line = refused(tmp_path / "t", 16 * 2**20)
    assert "it lists too many entries" in line


@pytest.mark.parametrize("text", ["[],", '{"":{}},'])
def test_the_longest_header_takes_bounded_memory(tmp_path, text):
    text = '{"kind": [' + text * (4_190_000 // len(text)) + "0]}"
    hostile_tickets.header_of(tmp_path / "t", text)
    assert "names no kind" in refused(tmp_path / "t", 256 * 2**20)


LONG = [1] * 1_000_000
"""A shape list of which a file of 3 kB stands for a million numbers."""


def shape_of_mask():
    return hostile_tickets.parts(shapes={"fc/kernel": LONG})


def shape_of_array():
    header, arrays = hostile_tickets.parts()
    header["arrays"]["weights/fc/bias"]["shape"] = LONG
    return header, arrays


@pytest.mark.parametrize("build", [shape_of_mask, shape_of_array])
def test_a_shape_of_a_million_numbers_is_refused(tmp_path, build):
    hostile_tickets.write(tmp_path / "t", *build())
    line = refused(tmp_path / "t", 256 * 2**20)
    assert "no list of few numbers as its shape" in line


DTYPES = {
    "strings": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "complex": np.zeros(2, "c8"),
    "dates": np.zeros(2, "M8[s]"),
    "durations": np.zeros(2, "m8[s]"),
    "long doubles": np.zeros(2, "g"),
    "void": np.zeros(2, "V8"),
}


@pytest.mark.parametrize("array", DTYPES.values(), ids=DTYPES)
def test_weights_are_numbers_that_keras_computes_with(tmp_path, array):
    parts = hostile_tickets.parts(arrays={"weights/fc/bias": array})
    hostile_tickets.write(tmp_path / "t", *parts)
    line = refused(tmp_path / "t", 2**20)
    assert "holds neither numbers nor truth values" in line


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", "f2", "f4", "f8", ">f4"])
def test_weights_of_every_number_are_read(tmp_path, dtype):
    parts = hostile_tickets.parts(arrays={"weights/fc/bias": np.ones(2, dtype)})
    hostile_tickets.write(tmp_path / "t", *parts)
    assert load(tmp_path / "t").origin.weights["fc/bias"].sum() == 2


def many(count, name="layer_{}/kernel"):
    """Returns a ticket of many masks, each of 8 weights, and many biases."""
    names = [name.format(index) for index in range(count)]
    arrays = {f"masks/{n}": hostile_tickets.MASK for n in names}
    arrays |= {f"weights.kept/{n}": np.ones(1, "f4") for n in names}
    arrays |= {f"weights/{n}_bias": np.zeros(1, "f4") for n in names}
    header, arrays = hostile_tickets.parts(arrays=arrays)
    shapes = {name: [4, 2] for name in [*names, "fc/kernel"]}
    header |= {"shapes": shapes, "widths": dict.fromkeys(shapes, 1)}
    return header, arrays


def test_thousands_of_tiny_masks_do_not_hang(tmp_path):
    # A comparison of every name with every other would take minutes.
    hostile_tickets.write(tmp_path / "t", *many(5_000))
    assert load(tmp_path / "t").masks.kept == 5_001


def test_no_name_is_compared_with_hundreds_of_long_ones(tmp_path):
    header, arrays = many(200, "a" * 2_000 + "{}")
    header["drawn"] = {"a" * 2_000: {}}
    hostile_tickets.write(tmp_path / "t", header, arrays)
    assert "kernels that it does not mask" in refused(
        tmp_path / "t", 64 * 2**20
    )


def test_a_name_of_many_folders_is_refused(tmp_path):
    name = "weights/" + "a/" * 30_000
    parts = hostile_tickets.parts(arrays={name: np.zeros(1, "f4")})
    hostile_tickets.write(tmp_path / "t", *parts)
    assert "too long a name" in refused(tmp_path / "t", 4 * 2**20)


def test_a_mask_of_more_weights_than_memory_is_refused(tmp_path):
    shape = [2**20, 2**20]
    parts = hostile_tickets.parts(shapes={"fc/kernel": shape})
    hostile_tickets.write(tmp_path / "t", *parts)
    assert "masks of 1099511627776 weights" in refused(tmp_path / "t", 2**20)


HEADERS = {
    "format": [{"a": 1}, True, 1.0, None],
    "level": [-1, True, 1.5, 2**64, "3"],
    "step": [-1, None, 10**300],
    "shapes": [[], {"fc/kernel": "ab"}, {"fc/kernel": {"4": 2}}],
    "drawn": [[], {"other": {}}, {"fc/kernel": 1}],
    "variant": [1, None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in HEADERS.items() for v in values]
)
def test_a_header_of_another_type_is_refused(tmp_path, name, value):
    parts = hostile_tickets.parts(**{name: value})
    hostile_tickets.write(tmp_path / "t", *parts)
    refused(tmp_path / "t", 2**20)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t")
    assert "it is not a regular file" in refused(tmp_path / "t", 2**20)


def test_a_name_cannot_reach_the_terminal(tmp_path):
    name = "weights/\x1b[2J\x9b31m\u202e"
    parts = hostile_tickets.parts(arrays={name: np.zeros(1, "c8")})
    hostile_tickets.write(tmp_path / "t", *parts)
    line = refused(tmp_path / "t", 2**20)
    assert r"\x1b[2J\x9b31m\u202e" in line
