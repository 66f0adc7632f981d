import contextlib
import hashlib
import io
import json
import os
import resource
import zipfile

import keras
import numpy as np
import pytest

from tf_lottery.core.storage import array_file

HEADER = {"level": 3, "note": "naïve", "nested": {"a": [1, None, 0.1]}}
ARRAYS = {
    "fc1/kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "mask": np.array([[True], [False]]),
    "step": np.array(7),
    "none": np.zeros((0, 4), "float16"),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.ticket"
    array_file.write(path, "ticket", HEADER, ARRAYS)
    return path


def same(one, other):
    return list(one) == list(other) and all(
        a.dtype == other[n].dtype
        and a.shape == other[n].shape
        and a.tobytes() == other[n].tobytes()
        for n, a in one.items()
    )


# What goes in comes out.


def test_header_and_arrays_come_back_as_they_were(file):
    header, arrays = array_file.read(file, "ticket")
    assert header == {"kind": "ticket", **HEADER}
    assert same(dict(sorted(arrays.items())), dict(sorted(ARRAYS.items())))


def test_all_but_floats_is_compressed(tmp_path):
    arrays = {"mask": np.zeros(5000, bool), "weights": np.zeros(5000)}
    array_file.write(tmp_path / "a", "ticket", {}, arrays)
    with zipfile.ZipFile(tmp_path / "a") as file:
        sizes = {e.filename: e.compress_size for e in file.infolist()}
    assert sizes["mask.npy"] < 500
    assert sizes["weights.npy"] > 40_000
    _, read = array_file.read(tmp_path / "a", "ticket")
    assert same(read, arrays)


def test_numpy_reads_the_arrays_without_pickle(file):
    with np.load(file, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["fc1/kernel"], ARRAYS["fc1/kernel"])
        assert json.loads(arrays["header"].tobytes())["level"] == 3


def test_an_archive_of_no_arrays_is_an_archive(tmp_path):
    array_file.write(tmp_path / "a", "note", {}, {})
    assert array_file.read(tmp_path / "a", "note") == ({"kind": "note"}, {})


@pytest.mark.parametrize("name", ["header", "arrays", "kind", "a b/ü.npy"])
def test_an_array_of_any_name_comes_back_or_is_refused(tmp_path, name):
    try:
        array_file.write(tmp_path / "a", "t", {}, {name: np.ones(2)})
    except ValueError:
        return
    assert np.array_equal(array_file.read(tmp_path / "a", "t")[1][name], [1, 1])


def test_a_header_cannot_change_the_kind(tmp_path):
    try:
        array_file.write(tmp_path / "a", "t", {"kind": "u"}, {})
    except ValueError:
        return
    assert array_file.read(tmp_path / "a", "t")[0]["kind"] == "t"


# Equal contents, equal bytes.


EQUAL_ARRAYS = {
    "again": ARRAYS,
    "in another order": dict(reversed(ARRAYS.items())),
    "in Fortran order": {
        n: np.asarray(a, order="F") for n, a in ARRAYS.items()
    },
    "not contiguous": {
        n: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a
        for n, a in ARRAYS.items()
    },
}


@pytest.mark.parametrize("arrays", EQUAL_ARRAYS.values(), ids=EQUAL_ARRAYS)
def test_equal_contents_give_equal_bytes(file, tmp_path, arrays):
    other = tmp_path / "elsewhere"
    array_file.write(other, "ticket", dict(reversed(HEADER.items())), arrays)
    assert other.read_bytes() == file.read_bytes()


def test_bytes_do_not_depend_on_the_hour(file):
    with zipfile.ZipFile(file) as opened:
        dates = {info.date_time for info in opened.infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        ({**HEADER, "level": 4}, ARRAYS),
        (HEADER, {**ARRAYS, "mask": ~ARRAYS["mask"]}),
        (HEADER, {**ARRAYS, "mask": ARRAYS["mask"].astype("int8")}),
        (HEADER, {**ARRAYS, "mask": ARRAYS["mask"].T}),
    ],
)
def test_other_contents_give_other_bytes(file, header, arrays):
    before = file.read_bytes()
    array_file.write(file, "ticket", header, arrays)
    assert file.read_bytes() != before


# Atomic.


@contextlib.contextmanager
def small_disk():
    """No file may grow beyond 100 bytes: a write fails half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_write_fails(path, error, match, arrays=ARRAYS):
    before = path.read_bytes()
    with pytest.raises(error, match=match):
        array_file.write(path, "ticket", {"level": 4}, arrays)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_write_that_runs_out_of_disk_leaves_the_old_file(file):
    with small_disk():
        assert_write_fails(file, OSError, "too large")


def test_objects_are_never_written(file):
    objects = {"a": np.array([{}, None])}
    assert_write_fails(file, ValueError, "cannot hold", objects)


def test_numbers_that_numpy_cannot_name_are_never_written(file):
    halves = keras.ops.convert_to_numpy(keras.ops.ones(2, "bfloat16"))
    why = "'a' is bfloat16, .* Cast it first"
    assert_write_fails(file, ValueError, why, {"a": halves})


def test_a_successful_write_replaces_the_file_and_leaves_nothing_beside(file):
    before = file.read_bytes()
    with file.open("rb") as reader:
        array_file.write(file, "ticket", {"level": 4}, {})
        # Whoever is reading the old file reads it to its end.
        assert reader.read() == before
    assert array_file.read(file, "ticket") == (
        {"kind": "ticket", "level": 4},
        {},
    )
    assert os.listdir(file.parent) == [file.name]


# Damage.


def refused(path, kind="ticket"):
    """Returns the one line that refuses a file."""
    with pytest.raises(
        ValueError, match="is no .* file, or a damaged"
    ) as error:
        array_file.read(path, kind)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < len(str(path)) + 300
    assert line.startswith(f"{str(path)!r} is no {kind} file, or a damaged one")
    return line


def test_a_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="No ticket file '.*nowhere'"):
        array_file.read(tmp_path / "nowhere", "ticket")


def test_a_file_of_another_kind_says_what_it_holds(file):
    assert refused(file, "checkpoint").endswith("it holds a 'ticket'.")


def test_a_directory_is_no_archive(tmp_path):
    assert refused(tmp_path)


def test_a_file_truncated_anywhere_is_refused(file):
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        refused(file)


def read_or_message(path):
    try:
        return array_file.read(path, "ticket")
    except ValueError as error:
        return str(error)


@pytest.mark.slow
def test_a_flipped_bit_is_refused_or_harmless(file):
    data = bytearray(file.read_bytes())
    expected = array_file.read(file, "ticket")
    harmless = 0
    for place in range(8 * len(data)):
        data[place // 8] ^= 1 << place % 8
        file.write_bytes(data)
        found = read_or_message(file)
        if isinstance(found, str):
            assert "\n" not in found
            assert len(found) < len(str(file)) + 300
        else:  # a date, say
            harmless += 1
            assert found[0] == expected[0]
            assert same(found[1], expected[1])
        data[place // 8] ^= 1 << place % 8
    assert harmless < 4 * len(data)


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def raw(text):
    return npy(np.frombuffer(text.encode(), "uint8"))


def described(shape, padding=0):
    """A `.npy` that promises float32 of a shape, and holds nothing."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * padding + "\n"
    size = len(text).to_bytes(4, "little")
    return b"\x93NUMPY\x02\x00" + size + text.encode()


def listed(array=None, **entry):
    """A header and its array; the header lies where `entry` says."""
    honest = {"shape": [2], "dtype": "<f4"}
    honest["sha256"] = hashlib.sha256(np.ones(2, "f4").tobytes()).hexdigest()
    arrays = {"a": {**honest, **entry}}
    header = json.dumps({"kind": "ticket", "arrays": arrays})
    honest_array = npy(np.ones(2, "f4"))
    return {"header": raw(header), "a": array or honest_array}


def forge(path, entries):
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in entries.items():
            opened.writestr(f"{name}.npy", data)


FOREIGN = {
    "plain text": b"It was a dark and stormy night.\n" * 50,
    "empty": b"",
    "a foreign zip": {"word/document": b"<xml/>"},
    "a foreign npz": {"x": npy([1, 2])},
    "a header of other JSON": {"header": raw("[1]")},
    "a header of no JSON": {"header": raw("{kind: ticket}")},
    "a header of no text": {"header": npy(np.array([255, 254], "uint8"))},
    "a header nested too deep": {"header": raw("[" * 100_000)},
    "a header of objects": {
        "header": npy(np.array([{}]), allow_pickle=True),
    },
    "a header without arrays": {"header": raw('{"kind": "ticket"}')},
    "arrays that are a list": {
        "header": raw('{"kind": "ticket", "arrays": [1]}')
    },
    "an entry of another type": {
        "header": raw('{"kind": "ticket", "arrays": {"a": 1}}')
    },
    "an array that is missing": {"header": listed()["header"]},
    "an array of objects": listed(npy(np.array([{}]), allow_pickle=True)),
    "an entry of objects": listed(dtype="|O"),
    "an entry of nested objects": listed(dtype="<f4,O"),
    "an entry of no dtype": listed(dtype="nonsense"),
    "an entry of another dtype": listed(dtype="<i4"),
    "an entry of another shape": listed(shape=[1, 2]),
    "an entry of a negative shape": listed(shape=[-2]),
    "an entry of an astronomic shape": listed(shape=[10**30]),
    "an entry of a shape of words": listed(shape="ab"),
    "an entry of another digest": listed(sha256="0" * 64),
    "an array larger than its entry": listed(npy(np.zeros(10**6, "f4"))),
    "an array of other values": listed(npy(np.zeros(2, "f4"))),
    "an array that is no npy": listed(b"nonsense"),
    "an array of an unfinished header": listed(
        b"\x93NUMPY\x01\x00\x04\x00{((("
    ),
    "an array of a very long header": listed(
        described("(2,)", 20_000), shape=[50_000]
    ),
    "an array that claims more memory than there is": listed(
        described("(1000000000000000,)")
    ),
    "a header that claims more memory than there is": {
        "header": described("(1000000000000000,)")
    },
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_or_forged_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a"
    if isinstance(content, dict):
        forge(path, content)
    else:
        path.write_bytes(content)
    refused(path)


def test_the_forger_of_this_file_can_be_honest(tmp_path):
    # Otherwise the table above would be refused for another reason.
    forge(tmp_path / "a", listed())
    assert array_file.read(tmp_path / "a", "ticket")[1]["a"].tolist() == [1, 1]


def test_a_header_beyond_16_mib_is_not_unpacked(tmp_path):
    zipped = zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED)
    with zipped, zipped.open("header.npy", "w") as entry:
        for _ in range(17):
            entry.write(bytes(2**20))
    assert "header is too large" in refused(tmp_path / "a")


def test_an_array_beyond_its_entry_is_not_unpacked(tmp_path):
    forge(tmp_path / "a", listed(npy(np.zeros(10**6, "f4"))))
    assert "a has another size than its header says" in refused(tmp_path / "a")


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    zipped = zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED)
    with zipped:
        zipped.writestr("header.npy", listed()["header"])
        with zipped.open("a.npy", "w") as entry:
            for _ in range(257):
                entry.write(bytes(2**20))
    assert "would unpack to 269" in refused(tmp_path / "a")


def test_a_file_may_unpack_to_its_allowance_and_to_no_byte_more(
    file, monkeypatch
):
    with zipfile.ZipFile(file) as opened:
        size = sum(entry.file_size for entry in opened.infolist())
    monkeypatch.setattr(array_file, "_EXPANSION", 0)
    monkeypatch.setattr(array_file, "_ALWAYS_ALLOWED", size)
    assert array_file.read(file, "ticket")[0]["level"] == 3
    monkeypatch.setattr(array_file, "_ALWAYS_ALLOWED", size - 1)
    assert f"would unpack to {size} bytes" in refused(file)


def test_the_allowance_is_256_mib_or_64_times_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(bytes(1000))
    assert array_file.allowance(path) == 256 * 2**20
    monkeypatch.setattr(array_file, "_ALWAYS_ALLOWED", 63_999)
    assert array_file.allowance(path) == 64_000


def test_a_header_of_exactly_the_limit_is_read(file, monkeypatch):
    with zipfile.ZipFile(file) as opened:
        size = opened.getinfo("header.npy").file_size
    monkeypatch.setattr(array_file, "_HEADER_LIMIT", size)
    assert array_file.read(file, "ticket")[0]["level"] == 3
    monkeypatch.setattr(array_file, "_HEADER_LIMIT", size - 1)
    assert "its header is too large" in refused(file)


def test_a_header_that_is_no_mapping_is_named(tmp_path):
    forge(tmp_path / "a", {"header": raw("[1]")})
    assert "its header is not a mapping" in refused(tmp_path / "a")


def test_a_long_reason_is_cut(tmp_path):
    error = array_file.damaged(tmp_path, "ticket", ValueError("x" * 999))
    assert "x" * 150 in str(error)
    assert "x" * 201 not in str(error)


@pytest.mark.parametrize("shape", [[-2], [2.0], ["2"], [None, 2]])
def test_a_shape_that_cannot_be_is_named(tmp_path, shape):
    forge(tmp_path / "a", listed(shape=shape))
    assert "a has a shape of" in refused(tmp_path / "a")


def test_reading_never_unpickles(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    bomb = npy(np.array([Bomb()], object), allow_pickle=True)
    for content in (listed(bomb), listed(bomb, dtype="|O"), {"header": bomb}):
        forge(tmp_path / "a", content)
        refused(tmp_path / "a")
