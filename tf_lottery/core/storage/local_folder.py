"""A folder on a disk."""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Iterator

from tf_lottery.core.storage import atomic
from tf_lottery.core.storage.folder import StorageError

_LATER = "the same command goes on from there"
_ADVICE = {
    errno.ENOSPC: f"Make room; {_LATER}",
    errno.EDQUOT: f"Make room in your quota; {_LATER}",
    errno.EACCES: "Ask for the permission, or choose another folder",
    errno.EROFS: "Choose a folder that can be written",
    errno.EIO: f"Look after the disk; {_LATER}",
}


class LocalFolder:
    """A `Folder` on a disk. Writing creates the folders that are missing.

    Args:
        path: The folder; it need not exist.

    Attributes:
        path: The folder.
        address: The same, as text.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.address = str(path)

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if it does not exist.

        Args:
            name: The file.
        """
        with _os_errors("read", self.path / name):
            try:
                return (self.path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or replaces it.

        Args:
            name: The file.
            content: Its content.
        """
        with _os_errors("write", self.path / name):
            atomic.write_bytes(self._in_folder(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it exists; returns whether it was written.

        Args:
            name: The file.
            content: Its content.
        """
        with _os_errors("write", self.path / name):
            return atomic.create(self._in_folder(name), content)

    def remove(self, name: str) -> None:
        """Removes a file, if it exists.

        Args:
            name: The file.
        """
        path = self.path / name
        with (
            _os_errors("remove", path),
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
        ):
            path.unlink()
            atomic.sync_folder(path.parent)

    def remove_folder(self, name: str) -> None:
        """Removes a folder with all it holds, if it exists.

        Args:
            name: The folder.
        """
        shutil.rmtree(self.path / name, ignore_errors=True)

    def files(self, folder: str = "") -> dict[str, str]:
        """Returns all files below a folder, in order.

        Args:
            folder: The folder. The default is this one.

        Returns:
            Name to a text that changes with the file's content.
        """
        versions: dict[str, str] = {}
        for path in sorted((self.path / folder).rglob("*")):
            # A driver may be replacing or removing the file.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if not path.is_dir():
                    name = path.relative_to(self.path).as_posix()
                    versions[name] = f"{status.st_mtime_ns} {status.st_size}"
        return versions

    def folders(self) -> list[str]:
        """Returns the names of the folders in this one, in order."""
        return sorted(p.name for p in self.path.glob("*") if p.is_dir())

    def _in_folder(self, name: str) -> pathlib.Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextlib.contextmanager
def _os_errors(verb: str, path: pathlib.Path) -> Iterator[None]:
    """Replaces an error of the system by one line that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        advice = _ADVICE.get(error.errno or 0, "Choose another folder")
        raise StorageError(
            f"Cannot {verb} {str(path)!r}: {reason}. {advice}."
        ) from None
