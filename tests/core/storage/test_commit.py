"""Files that are committed together: all are as written, or an error."""

import json

import pytest

from tf_lottery.core.storage import commit, sealed_json
from tf_lottery.core.storage.folder import open_folder
from tf_lottery.core.storage.sealed_json import DamagedFileError

FILES = {"ticket": b"masks", "trained": b"weights"}


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    address = f"memory://commits/{tmp_path.name}"
    return open_folder(tmp_path if request.param == "disk" else address)


def test_files_are_read_as_committed(folder):
    assert commit.read(folder, "net") is None
    commit.commit(folder, "net", FILES, {"level": 3})
    record, contents = commit.read(folder, "net")
    assert record["level"] == 3
    assert contents == FILES
    assert commit.read(folder, "net", ["ticket"])[1] == {"ticket": b"masks"}
    assert commit.read_record(folder, "net") == record
    with commit.checkout(folder, "net") as (record, path):
        assert (path / "trained").read_bytes() == b"weights"
    with commit.checkout(folder, "other") as found:
        assert found is None


def test_a_commit_replaces_all_files(folder):
    commit.commit(folder, "net", FILES, {})
    commit.commit(folder, "net", {"ticket": b"new"}, {"level": 4})
    assert list(folder.files()) == ["net/record.json", "net/ticket"]
    assert commit.read(folder, "net")[1] == {"ticket": b"new"}


@pytest.mark.parametrize("after", range(5))
def test_a_commit_that_ends_anywhere_is_no_commit(folder, monkeypatch, after):
    commit.commit(folder, "net", FILES, {"level": 3})
    calls = []

    def ending(method):
        def call(*arguments):
            if len(calls) == after:
                raise KeyboardInterrupt
            calls.append(arguments)
            return method(*arguments)

        return call

    for name in ("remove", "remove_folder", "write"):
        method = getattr(folder, name)
        monkeypatch.setattr(folder, name, ending(method), raising=False)
    with pytest.raises(KeyboardInterrupt):
        commit.commit(folder, "net", FILES, {"level": 4})
    monkeypatch.undo()
    found = commit.read(folder, "net")
    assert found is None if after else found[0]["level"] == 3


@pytest.mark.parametrize("name", ["ticket", "trained"])
@pytest.mark.parametrize("content", [None, b"", b"mask", b"Masks"])
def test_a_file_that_is_not_as_committed_is_named(folder, name, content):
    commit.commit(folder, "net", FILES, {})
    folder.remove(f"net/{name}")
    if content is not None:
        folder.write(f"net/{name}", content)
    with pytest.raises(DamagedFileError, match=f"net/{name}' is damaged"):
        commit.read(folder, "net")
    other = next(file for file in FILES if file != name)
    assert commit.read(folder, "net", [other])[1] == {other: FILES[other]}


def test_a_network_replaced_while_it_is_read_is_consistent(folder):
    commit.commit(folder, "net", FILES, {"level": 3})
    real, reads = folder.read, []

    def read(name):
        reads.append(name)
        if len(reads) == 2:
            commit.commit(folder, "net", {**FILES, "ticket": b"new"}, {})
        return real(name)

    folder.read = read
    assert commit.read(folder, "net")[1] == {**FILES, "ticket": b"new"}


def test_sealed_json_is_read_as_written():
    content = {"b": [1, 2.5, None], "a": {"ä": float("nan")}, "t": (1,)}
    data = sealed_json.seal(content)
    assert json.loads(data)["a"].keys() == {"ä"}
    read = sealed_json.unseal(data, "file")
    assert read["b"] == [1, 2.5, None]
    assert read["t"] == [1]
    assert sealed_json.seal(read) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[]", "it is no JSON"),
        (b"1", "it is no JSON"),
        (b"{}", "it has no checksum"),
        (b'{"sha256": 1}', "its content differs from its checksum"),
        (
            sealed_json.seal({"a": 1}).replace(b'"a": 1', b'"a": 2'),
            "its content differs from its checksum",
        ),
        (sealed_json.seal({"a": 1})[:-9], "it is no JSON"),
    ],
)
def test_other_json_is_refused_by_one_line_with_its_name(data, reason):
    with pytest.raises(
        DamagedFileError, match="'run/file' is damaged: " + reason
    ) as e:
        sealed_json.unseal(data, "run/file")
    assert "\n" not in str(e.value)
