"""Lookup and download of TensorFlow Datasets (TFDS).

TFDS is imported inside functions, because its import takes half a second.
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
"""Folder that TFDS prepares data sets in; `None` is TFDS's default."""

_SECONDS_TO_ANSWER = 10


def names() -> list[str]:
    """Returns the names of all data sets of TFDS."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def knows(name: str, data_dir: DataDir = None) -> bool:
    """Returns whether TFDS, or the folder, has a data set of that name.

    Args:
        name: The name in TFDS, such as `"emnist/letters"` or `"mnist:3.0.1"`.
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
    """Returns TFDS's builder of a data set, prepared or not.

    Args:
        name: The name in TFDS, such as `"emnist/letters"` or `"mnist:3.0.1"`.
        data_dir: The folder that TFDS prepares data sets in.

    Raises:
        UserError: TFDS does not have the set, or not that version.
    """
    import tensorflow_datasets as tfds

    try:
        with _quiet():
            return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # Of many types, depending on the name.
        raise UserError(
            f"Data set {name!r} cannot be opened: {one_line(error)}."
        ) from error


def fetch(builder: Any, name: str, data_dir: DataDir) -> None:
    """Downloads and prepares a data set, unless it is prepared.

    Args:
        builder: The builder of the set.
        name: The requested name, for the message.
        data_dir: The requested folder, for the message.

    Raises:
        UserError: The set is not available. The message names the folder that
            was searched and the command that downloads the set.
    """
    with _quiet():
        if builder.is_prepared():
            return
    root = "" if data_dir is None else f", data_dir={os.fspath(data_dir)!r}"
    advice = (
        "With a network connection, run: python -c "
        f'"import tensorflow_datasets as tfds; tfds.load({name!r}{root})" '
        "and, on another machine, copy the folder that it fills to this one."
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
    except Exception as error:  # Network, disk, checksums, missing packages.
        raise UserError(
            f"{missing}, and preparing it failed: {one_line(error)}. {advice}"
        ) from error


def _answers(url: str) -> bool:
    """Returns whether a server can be reached, directly or by a proxy.

    TFDS itself retries for minutes before it reports a missing network.
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
    """Hides the messages and progress bars of TFDS."""
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
