"""How an export takes the place of an older one."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from tf_lottery.core.errors import UserError


@contextlib.contextmanager
def beside(
    path: str | os.PathLike[str], marker: str = ""
) -> Iterator[pathlib.Path]:
    """Gives a path beside to write to, and renames it when all is written.

    Args:
        path: The file or directory to be; one of its kind is replaced.
        marker: Of a directory, the file in it that shows its kind. "": a
            file is written.

    Raises:
        ValueError: Something else is at `path`, which is left as it is; or
            nothing can be written there.
    """
    target = pathlib.Path(path)
    fits = (target / marker).is_file() if marker else target.is_file()
    if target.exists() and not fits:
        what = f"holds no {marker}" if marker else "is no file"
        raise UserError(
            f"{target} exists and {what}. Remove it, or export somewhere else."
        )
    written = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield written
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(written, target)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Export "
            "somewhere else."
        ) from error
    finally:
        if written.is_dir():
            shutil.rmtree(written)
        elif written.exists():
            written.unlink()
