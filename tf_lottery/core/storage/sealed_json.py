"""JSON files that carry a checksum of their own content."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tf_lottery.core.errors import UserError, one_line

_CHECKSUM = "sha256"


class DamagedFileError(UserError):
    """A file of a run is not as it was written."""


def seal(content: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a JSON file with a checksum under `"sha256"`.

    Args:
        content: What to write; values that JSON can hold.
    """
    # As it will be read: tuples are lists, and keys text.
    content = json.loads(json.dumps(content))
    sealed = {**content, _CHECKSUM: _checksum(content)}
    return f"{json.dumps(sealed, indent=2, sort_keys=True)}\n".encode()


def unseal(data: bytes, address: str) -> dict[str, Any]:
    """Returns the content of a file that `seal` made, without its checksum.

    Args:
        data: The file's bytes.
        address: The file, for the message.

    Raises:
        DamagedFileError: The file is truncated or altered.
    """
    try:
        content = json.loads(data)
        checksum = content.pop(_CHECKSUM)
    except KeyError:
        raise damaged(address, "it has no checksum") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(address, f"it is no JSON: {one_line(error)}") from None
    if checksum != _checksum(content):
        raise damaged(address, "its content differs from its checksum")
    return content


def damaged(address: str, reason: str) -> DamagedFileError:
    """Returns the error for a file that is not as it was written.

    Args:
        address: The file.
        reason: What is wrong, as the end of a sentence.
    """
    return DamagedFileError(
        f"{address!r} is damaged: {reason}. Restore it from a copy; without "
        "one, the command that wrote it trains again what is lost."
    )


def _checksum(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
