"""Masks as other codebases write them."""

import io
import os
import zipfile

import memory
import numpy as np
import pytest
import sample_tickets
import toy

from tf_lottery import export, masking


def masked(model):
    model = masking.mask_model(model)
    masking.set_masks(model, toy.random_masks(model))
    return model


@pytest.mark.parametrize("format", ["open_lth", "google"])
@pytest.mark.parametrize("model", [toy.mlp, toy.convnet])
def test_masks_written_are_read_again(model, format, tmp_path):
    source = masked(model())
    for _ in range(2):
        path = export.write_masks(source, tmp_path / "mask", format)
    masks = export.read_masks(path, model(), format)
    assert masks == masking.get_masks(source)
    assert [p.name for p in tmp_path.iterdir()] == ["mask"]


def test_a_ticket_is_written_in_the_order_of_its_layers(tmp_path):
    ticket = sample_tickets.make(toy.mlp())
    export.write_masks(ticket, tmp_path / "masks", "google")
    for index, name in enumerate(("dense", "dense_1", "dense_2")):
        stored = np.load(tmp_path / "masks" / f"layer{index}.npy")
        assert np.array_equal(stored, ticket.masks[f"{name}/kernel"])


def test_open_lth_has_outputs_first(tmp_path):
    source = masked(toy.convnet())
    names = ["conv.weight", "fc.weight"]
    path = export.write_masks(source, tmp_path / "m.npz", "open_lth", names)
    ours = masking.get_masks(source)
    with np.load(path) as theirs:
        assert theirs.files == names
        assert theirs["conv.weight"].dtype == np.int32
        conv = theirs["conv.weight"]
        assert conv.shape == (4, 1, 3, 3)
        assert conv[2, 0, 1, 0] == ours["conv2d/kernel"][1, 0, 0, 2]
        assert np.array_equal(theirs["fc.weight"].T, ours["dense/kernel"])


def test_what_numpy_saves_is_read(tmp_path):
    ours = toy.random_masks(toy.mlp())
    arrays = {
        f"fc{i}.weight": m.T.astype(int) for i, m in enumerate(ours.values())
    }
    np.savez_compressed(tmp_path / "mask.npz", **arrays)
    assert (
        export.read_masks(tmp_path / "mask.npz", toy.mlp(), "open_lth") == ours
    )


def npz(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in entries.items():
            opened.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def altered(offset, value, **entries):
    """Returns an archive that says otherwise of its first entry."""
    data = bytearray(npz(**entries))
    data[offset] = value
    data[data.index(b"PK\x01\x02") + offset + 2] = value
    return bytes(data)


HUGE = npy(np.zeros((16, 36), "int8")).replace(b"(16, 36)", b"(9999999999,)")
RIGHT = npy(np.zeros((8, 16))), npy(np.zeros((3, 8)))
BAD = {
    "no archive": (b"mask", "not a zip file"),
    "too few": (npz(a=RIGHT[0]), r"it holds 1 masks \(a.npy\), and the model"),
    "another shape": (
        npz(a=npy(np.zeros((36, 16))), b=RIGHT[0], c=RIGHT[1]),
        r"a.npy, of dense/kernel is float64 of shape \(36, 16\), not",
    ),
    "huge": (npz(a=HUGE, b=RIGHT[0], c=RIGHT[1]), "is int8 of shape"),
    "objects": (
        npz(
            a=npy(np.full((16, 36), None), allow_pickle=True),
            b=RIGHT[0],
            c=RIGHT[1],
        ),
        "is object of shape",
    ),
    "wide": (
        npz(a=npy(np.zeros((16, 36), "S99")), b=RIGHT[0], c=RIGHT[1]),
        "is .S99 of shape",
    ),
    "a long header": (
        npz(a=npy(np.zeros((16, 36)), version=(2, 0)), b=RIGHT[0], c=RIGHT[1]),
        "is not a .npy file of version 1.0",
    ),
    "encrypted": (
        altered(6, 1, a=npy(np.zeros((16, 36))), b=RIGHT[0], c=RIGHT[1]),
        "encrypted, password required",
    ),
    "unknown compression": (
        altered(8, 99, a=npy(np.zeros((16, 36))), b=RIGHT[0], c=RIGHT[1]),
        "it is compressed otherwise than by deflate",
    ),
    "damaged": (
        altered(35, 255, a=npy(np.zeros((16, 36))), b=RIGHT[0], c=RIGHT[1]),
        "Error -3 while decompressing",
    ),
    "truncated": (
        npz(a=npy(np.zeros((16, 36)))[:-1], b=RIGHT[0], c=RIGHT[1]),
        "is truncated",
    ),
    "no mask": (
        npz(a=npy(np.full((16, 36), np.nan)), b=RIGHT[0], c=RIGHT[1]),
        "holds only 0 and 1",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_file_that_is_no_mask_of_the_model_is_refused(
    content, message, tmp_path
):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        export.read_masks(tmp_path / "m", toy.mlp(), "open_lth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_masks_of_a_few_kilobytes_do_not_fill_the_memory(tmp_path, method):
    arrays = npy(np.zeros((16, 36))), *RIGHT
    with zipfile.ZipFile(tmp_path / "m", "w", method) as file:
        for name, array in zip("abc", arrays, strict=True):
            with file.open(f"{name}.npy", "w") as entry:
                entry.write(array)
                for _ in range(64):
                    entry.write(bytes(2**20))
    read = export.read_masks
    held, error = memory.peak(read, tmp_path / "m", toy.mlp(), "open_lth")
    assert "compressed otherwise than by deflate" in str(error)
    assert held < 16 * 2**20


def test_masks_in_a_pipe_are_not_waited_for(tmp_path):
    for index in range(3):
        os.mkfifo(tmp_path / f"layer{index}.npy")
    with pytest.raises(ValueError, match="it is not a regular file"):
        export.read_masks(tmp_path, toy.mlp(), "google")


def test_bad_names_and_missing_files_are_refused(tmp_path):
    model = masked(toy.mlp())
    with pytest.raises(ValueError, match="3 kernels need as many diff"):
        export.write_masks(model, tmp_path / "m", "google", ["a"])
    with pytest.raises(ValueError, match="'../a' is not a valid file name"):
        export.write_masks(model, tmp_path / "m", "google", ["../a", "b", "c"])
    with pytest.raises(ValueError, match="Unknown format of masks 'googel'"):
        export.read_masks(tmp_path, model, "googel")
    with pytest.raises(ValueError, match="it holds 0 masks"):
        export.read_masks(tmp_path / "missing", model, "google")
    assert not list(tmp_path.iterdir())
