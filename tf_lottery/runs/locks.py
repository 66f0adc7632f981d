"""Who trains a run: one process, or one process for each shard of it."""

import contextlib
from collections.abc import Callable, Iterator

from tf_lottery.core.storage.folder import Folder
from tf_lottery.core.storage.lock import FOLDER, Lock, names

__all__ = ["FOLDER", "shard_lock"]


@contextlib.contextmanager
def shard_lock(
    folder: Folder, shard: tuple[int, int], on_wait: Callable[[str], None]
) -> Iterator[Lock]:
    """Yields the lock of this process on a shard of a run or of a sweep.

    Args:
        folder: The run or the sweep.
        shard: Number of the shard, and of all shards.
        on_wait: Called with a sentence before a wait for a sign of life.

    Raises:
        LockedError: A live process has the shard, or works on the same folder
            with another number of shards.
    """
    index, count = shard
    with Lock(folder, f"{index}_of_{count}", on_wait) as lock:
        for name in names(folder):
            if name.rpartition("_of_")[2] != str(count):
                Lock(folder, name, on_wait).require_free()
        yield lock
