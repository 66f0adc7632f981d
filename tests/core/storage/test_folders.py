"""Folders on a disk and in object stores keep the same promises."""

import concurrent.futures
import contextlib
import errno
import os
import subprocess
import sys

import object_stores
import pytest
from run_processes import ROOT

from tf_lottery.core.errors import UserError
from tf_lottery.core.storage import atomic, object_folder
from tf_lottery.core.storage.folder import (
    StorageError,
    is_address,
    open_folder,
)


@pytest.fixture(scope="module", params=["disk", "memory", "s3", "gs"])
def root(request, tmp_path_factory):
    """A path or an address, under which each test has a folder."""
    if request.param == "disk":
        yield str(tmp_path_factory.mktemp("folders"))
    else:
        object_folder._store.cache_clear()
        with object_stores.serving(request.param) as address:
            yield address
        object_folder._store.cache_clear()


@pytest.fixture
def folder(root, request):
    return open_folder(f"{root}/{request.node.originalname}")


def test_files_are_written_read_listed_and_removed(folder):
    assert folder.files() == {}
    assert folder.folders() == []
    assert folder.read("a/1") is None
    for number in range(12):
        folder.write(f"a/{number}", b"%d" % number)
    folder.write("top", b"")
    folder.write("b/c/deep", b"deep")
    assert folder.read("a/7") == b"7"
    assert folder.read("top") == b""
    assert list(folder.files("a")) == sorted(f"a/{n}" for n in range(12))
    assert {"top", "b/c/deep"} < folder.files().keys()
    assert folder.folders() == ["a", "b"]
    folder.remove("a/7")
    folder.remove("a/7")
    folder.remove("no/such")
    assert folder.read("a/7") is None
    folder.remove_folder("a")
    folder.remove_folder("a")
    assert list(folder.files()) == ["b/c/deep", "top"]


def test_a_write_replaces_and_changes_the_version(folder):
    folder.write("file", b"one")
    before = folder.files()
    assert folder.files() == before
    folder.write("file", b"two")
    assert folder.read("file") == b"two"
    assert folder.files().keys() == before.keys()
    assert folder.files() != before


def test_a_file_is_created_by_one_of_many(folder):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda n: folder.create("a/file", b"%d" % n), range(8))
        )
    assert made.count(True) == 1
    assert folder.read("a/file") == b"%d" % made.index(True)
    assert not folder.create("a/file", b"late")
    assert list(folder.files()) == ["a/file"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_large_file_is_written_whole(folder):
    content = os.urandom(2**20) * 51  # Clients send it in parts.
    folder.write("large", content)
    assert folder.read("large") == content


def test_readers_never_see_half_of_a_file(folder):
    contents = [bytes([n]) * 100_000 for n in (1, 2)]
    folder.write("file", contents[0])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reads = [pool.submit(folder.read, "file") for _ in range(20)]
        for n in range(10):
            folder.write("file", contents[n % 2])
        assert {read.result() for read in reads} <= set(contents)


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_missing_bucket_is_named(kind):
    object_folder._store.cache_clear()
    with object_stores.serving(kind):
        folder = open_folder(f"{kind}://missing/run")
        for use in (
            folder.files,
            folder.folders,
            lambda: folder.write("file", b""),
        ):
            with pytest.raises(StorageError, match="There is no bucket 'miss"):
                use()
    object_folder._store.cache_clear()


def test_a_forbidden_bucket_is_named():
    object_folder._store.cache_clear()
    with object_stores.serving("gs"):
        folder = open_folder("gs://forbidden/run")
        for use in (folder.files, lambda: folder.read("file")):
            with pytest.raises(StorageError, match="No permission for 'gs://f"):
                use()
    object_folder._store.cache_clear()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftpx://b/run", "Unknown kind of address ftpx://…: give a folder"),
        ("gs://", "'gs://' names no folder: write it as gs://bucket/folder"),
    ],
)
def test_a_bad_address_is_one_line(address, message):
    with pytest.raises(UserError, match=message):
        open_folder(address)


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [
        ("gs", "gcsfs.core", "gcs"),
        ("s3", "s3fs", "s3"),
        ("az", "adlfs", "azure"),
    ],
)
def test_a_missing_package_is_named(scheme, package, extra):
    code = f"""
import sys
sys.modules[{package!r}] = None
from tf_lottery.core.storage.folder import open_folder
open_folder("{scheme}://b/run")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.stderr.splitlines()[-1] == (
        "tf_lottery.core.errors.MissingPackageError: Addresses "
        f"{scheme}://… need a package: pip install 'tf-lottery[{extra}]'."
    )


def test_the_clients_are_not_imported_without_an_address():
    code = """
import sys, tf_lottery.runs.run_directory
sys.exit(f"{'gcsfs' in sys.modules} {'s3fs' in sys.modules}")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.stderr.splitlines()[-1] == "False False"


def test_slashes_that_pathlib_took_are_given_back():
    assert open_folder("memory:/a/b").address == "memory://a/b"
    assert is_address("gs:/b/run")
    assert not is_address("/gs/run")
    assert not is_address("C:/run")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, code):
    folder = open_folder(tmp_path)
    folder.write("file", b"old")

    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    message = f"Cannot write '{tmp_path}/file': {os.strerror(code)}. .*goes on"
    with pytest.raises(StorageError, match=message):
        folder.write("file", b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert folder.read("file") == b"old"


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def spy(name):
        def call(*args):
            is_file = name != "fsync" or os.path.isfile(f"/dev/fd/{args[0]}")
            done.append(name if is_file else "fsync folder")
            return real[name](*args)

        return call

    for name in real:
        monkeypatch.setattr(os, name, spy(name))
    open_folder(tmp_path).write("a", b"")
    assert done == ["fsync", "replace", "fsync folder"]
    done.clear()
    open_folder(tmp_path).create("b", b"")
    assert done == ["fsync", "link", "fsync folder"]


def test_a_file_system_without_links_creates_files_too(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    folder = open_folder(tmp_path)
    assert folder.create("file", b"first")
    assert not folder.create("file", b"second")
    assert folder.read("file") == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_temporary_names_are_told_from_others(tmp_path):
    assert atomic.is_temporary(atomic.temporary_sibling(tmp_path / "a.json"))
    for name in ("a.json", ".ticket.unfinished", ".a.0123456789aX", ".locks"):
        assert not atomic.is_temporary(tmp_path / name)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "mkdir", denied)
    with pytest.raises(StorageError, match="Permission denied. Ask for the"):
        open_folder(tmp_path / "locked").write("file", b"")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(tmp_path / "locked")
