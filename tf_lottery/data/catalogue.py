"""This module knows how a set of TensorFlow Datasets is found and fetched.

TFDS is imported where it is used, as it takes half a second.
"""

import contextlib
import io
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from absl import logging as absl_logging

from tf_lottery.core.errors import UserError, one_line

DataDir = str | os.PathLike[str] | None

_SECONDS_TO_ANSWER = 10


def names() -> list[str]:
    """Returns the names of all sets of TFDS, image sets or not."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def knows(name: str, data_dir: DataDir = None) -> bool:
    """Returns whether TFDS has a set of that name, or one lies in the folder.

    Args:
        name: As TFDS names it; a configuration and a version may follow.
        data_dir: The folder that TFDS prepares data sets in.
    """
    if re.split("[/:]", name)[0] in names():
        return True
    try:
        get(name, data_dir)
    except ValueError:
        return False
    return True


def get(name: str, data_dir: DataDir = None) -> Any:
    """Returns TFDS's builder of a set, prepared or not.

    Args:
        name: As TFDS names it; a configuration and a version may follow.
        data_dir: The folder that TFDS prepares data sets in.

    Raises:
        ValueError: There is no such set, or not that version of it.
    """
    import tensorflow_datasets as tfds

    try:
        with _quiet():
            return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # of many types, on what the name asks for
        raise UserError(
            f"Data set {name!r} cannot be opened: {one_line(error)}."
        ) from error


def fetch(builder: Any, name: str, data_dir: DataDir) -> None:
    """Downloads and prepares a set, unless that is done already.

    Args:
        builder: Its builder.
        name: What it was asked for as.
        data_dir: The folder that was asked for.

    Raises:
        ValueError: It cannot be had. The message says where it was looked
            for, and the command that gets it.
    """
    with _quiet():
        if builder.is_prepared():
            return
    root = "" if data_dir is None else f", data_dir={os.fspath(data_dir)!r}"
    advice = (
        "Where there is a network, run: python -c "
        f'"import tensorflow_datasets as tfds; tfds.load({name!r}{root})" '
        "and, if that is another machine, copy the folder that it fills here."
    )
    missing = f"Data set {name!r} is not prepared in {str(builder.data_dir)!r}"
    url = next(iter(builder.url_infos or ()), None)
    if url and not _answers(url):
        raise UserError(
            f"{missing}, and {urlsplit(url).netloc} cannot be reached to "
            f"download it. {advice}"
        )
    logging.getLogger(__name__).warning(
        "Downloading data set %r to %r, once.", name, str(builder.data_dir)
    )
    try:
        with _quiet():
            builder.download_and_prepare()
    except Exception as error:  # network, disk, checksums, missing packages
        raise UserError(
            f"{missing}, and preparing it failed: {one_line(error)}. {advice}"
        ) from error


def _answers(url: str) -> bool:
    """Returns whether a server can be reached, through a proxy too.

    TFDS itself tries for minutes before it says that there is no network.
    """
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}/"
    # Not urlopen, which remembers the proxies of its first call.
    opener = urllib.request.build_opener()
    try:
        opener.open(root, timeout=_SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what TFDS says, and its progress bars, off the terminal."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        absl_logging.set_verbosity(before)
