"""Checkpoints of networks in training, and their copies in object stores."""

import contextlib
import pathlib
import shutil
import tempfile
import time
import weakref

from tf_lottery.core.storage.folder import Folder
from tf_lottery.core.storage.local_folder import LocalFolder

UPLOAD_SHARE = 0.05
"""Of the time of training that uploads of checkpoints may take."""


class InProgressFolder:
    """Where training writes its checkpoints: always a folder on a disk.

    If the run lies in an object store, that is a temporary folder of this
    process, and its files are uploaded. They never change once written.

    Args:
        folder: The run.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._scratch: pathlib.Path | None = None
        self._uploaded: set[str] = set()
        self._next_upload: dict[str, float] = {}  # folder to earliest time

    def local(self, name: str) -> pathlib.Path:
        """Returns the folder on the disk, with what was uploaded earlier.

        Args:
            name: The folder, relative to the run.
        """
        if isinstance(self._folder, LocalFolder):
            return self._folder.path / name
        path = self._local_copy(name)
        for file in self._folder.files(name):
            content = self._folder.read(file)
            target = self._local_copy(file)
            if content is not None and not target.exists():
                path.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            self._uploaded.add(file)
        return path

    def upload(self, name: str, at_once: bool = False) -> None:
        """Uploads the new checkpoints, unless the last upload was just now.

        Args:
            name: The folder, relative to the run.
            at_once: Whether to upload them in any case.
        """
        if isinstance(self._folder, LocalFolder):
            return
        start = time.monotonic()
        if start < self._next_upload.get(name, 0.0) and not at_once:
            return
        self._upload(name)
        end = time.monotonic()
        self._next_upload[name] = end + (end - start) / UPLOAD_SHARE

    def _upload(self, name: str) -> None:
        there = {f for f in self._uploaded if f.startswith(f"{name}/")}
        here = {
            f"{name}/{path.name}"
            for path in self._local_copy(name).glob("*")
            if not path.name.startswith(".")
        }
        for file in sorted(here - there):
            # Training may remove its old checkpoints meanwhile.
            with contextlib.suppress(FileNotFoundError):
                content = self._local_copy(file).read_bytes()
                self._folder.write(file, content)
                self._uploaded.add(file)
        for file in there - here:
            self._folder.remove(file)
            self._uploaded.discard(file)

    def remove(self, name: str) -> None:
        """Removes a folder of checkpoints, here and there.

        Args:
            name: The folder, relative to the run.
        """
        there = {f for f in self._uploaded if f.startswith(f"{name}/")}
        if isinstance(self._folder, LocalFolder) or there:
            self._folder.remove_folder(name)
        self._uploaded -= there
        if self._scratch is not None:
            shutil.rmtree(self._local_copy(name), ignore_errors=True)

    def _local_copy(self, name: str) -> pathlib.Path:
        if self._scratch is None:
            self._scratch = pathlib.Path(tempfile.mkdtemp(prefix="tf_lottery_"))
            weakref.finalize(self, shutil.rmtree, self._scratch, True)
        return self._scratch / name
