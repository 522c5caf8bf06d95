"""Downloads that are checked."""

import hashlib
import http.client
import re
import urllib.parse
import urllib.request
from pathlib import Path

from ..errors import DataError, explain
from ..fit.checkpoint import write_atomically


def fetch(url: str, sha256: str, folder: str | Path) -> Path:
    """The file at `url` in `folder`: downloaded unless it is there already, and never used if its digest differs.

    Arguments:  url: http, https or file.   sha256: of the file's bytes, 64 hexadecimal digits.
    Returns:    the file's path.
    Raises:     DataError if it cannot be had or is another file; CheckpointError if it cannot be written.
    """
    parts = urllib.parse.urlparse(url)
    name = Path(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https", "file") or not name:
        raise _refuse(url, "it is not the address of a file", "it is opened by urllib", "https://host/path/file.gz")
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise _refuse(url, f"sha256={sha256!r} is not 64 hexadecimal digits", "it tells one file", "`sha256sum FILE`")
    path = Path(folder) / name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256.lower():
        return path
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            data = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise _refuse(url, f"it cannot be had: {error}", "there is no copy here", "another mirror") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256.lower():
        wrong, because = f"its sha256 is {digest}", "it is not the file that was asked for; nothing was written"
        raise _refuse(url, wrong, because, "another mirror, or the digest of the new version")
    write_atomically(path, data)
    return path


def _refuse(url: str, wrong: str, because: str, instead: str) -> DataError:
    return DataError(explain(f"fetching `{url}`", wrong, because, instead))
