"""Files and directories that replace an older export atomically."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from tf_lottery.core.errors import UserError


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], marker: str = ""
) -> Iterator[pathlib.Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end.

    Args:
        path: The file or directory to write; an older one is replaced.
        marker: A file that every directory of this format contains; only a
            directory with it is replaced. "" to write a file.

    Raises:
        UserError: Something else is at `path`, which is not changed; or
            nothing can be written there.
    """
    target = pathlib.Path(path)
    is_older = (target / marker).is_file() if marker else target.is_file()
    if target.exists() and not is_older:
        problem = f"holds no {marker}" if marker else "is no file"
        raise UserError(
            f"{target} exists and {problem}. Remove it, or export somewhere "
            "else."
        )
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Export "
            "somewhere else."
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.exists():
            temporary.unlink()
