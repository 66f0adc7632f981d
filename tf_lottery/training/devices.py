"""The processors and the memory of this machine, as training needs them."""

import os
import pathlib
from collections.abc import Iterator

import tensorflow as tf

_GROUPS = {
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    "": ("memory.max", "memory.current"),
}
"""Folder of control groups (version 1, version 2) to the files of a group."""


def has_gpu() -> bool:
    """Returns whether TensorFlow trains on a GPU here."""
    return bool(tf.config.list_logical_devices("GPU"))


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Returns how many threads one TensorFlow operation uses here."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()


def available_memory(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Returns the bytes that new processes may take; None if unknown.

    It is the memory that the machine has available, or less if the control
    group of this process, as containers and batch jobs have one, allows less.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    return min((*_of_machine(root), *_of_control_groups(root)), default=None)


def _of_machine(root: pathlib.Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])
            return
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_control_groups(root: pathlib.Path) -> Iterator[int]:
    """Yields what each group allows that this process is in, if limited."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup" / controllers
        if controllers not in _GROUPS:
            continue
        folder = mount / path.lstrip("/")
        # In a container the path may be that on the host.
        for group in (folder, *folder.parents):
            if group.is_relative_to(mount):
                yield from _of_group(group, *_GROUPS[controllers])


def _of_group(folder: pathlib.Path, limit: str, usage: str) -> Iterator[int]:
    numbers = [*_lines(folder / limit), *_lines(folder / usage)]
    if len(numbers) == 2 and numbers[0] != "max":
        # Files that were read count as used, until memory is needed.
        name = "total_inactive_file" if "bytes" in limit else "inactive_file"
        cached = [
            int(line.split()[1])
            for line in _lines(folder / "memory.stat")
            if line.startswith(f"{name} ")
        ]
        yield max(0, int(numbers[0]) - int(numbers[1]) + sum(cached))


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
