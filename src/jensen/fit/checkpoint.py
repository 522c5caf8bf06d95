"""Checkpoints: the loop's carry in one file, without pickle; written to a new file and moved into place, so that a
crash or a full disk leaves the old one whole; a digest tells a truncated or altered file.

Format: one line of JSON (format, fingerprint, step, sha256 and size of the rest), then an `.npz` of the leaves in order.
"""

import contextlib
import hashlib
import io
import json
import os
import secrets
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..errors import CheckpointError, explain

FORMAT = "jensen-checkpoint-1"


def pack(arrays: dict[str, Any], header: dict[str, Any]) -> bytes:
    """Header line and npz bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    body = buffer.getvalue()
    head = {**header, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(head).encode() + b"\n" + body


def unpack(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays), or CheckpointError saying what is wrong with the file."""

    def refuse(wrong: str, because: str = "a damaged file must not be taken for a result") -> CheckpointError:
        return CheckpointError(explain(f"reading `{path}`", wrong, because, "an older copy, or a new run"))

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise refuse(f"it cannot be read: {error.strerror or error}", "nothing can be restored from it") from error
    line, newline, body = raw.partition(b"\n")
    try:
        header = json.loads(line) if newline else None
    except (UnicodeDecodeError, json.JSONDecodeError):
        header = None
    if not isinstance(header, dict) or header.get("format") != kind:
        raise refuse(f"it is not a file of format {kind}")
    if len(body) != header.get("bytes"):
        raise refuse(f"it is truncated: {len(body)} bytes of {header.get('bytes')}")
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise refuse("its contents do not match their digest")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            return header, {k: archive[k] for k in archive.files}
    except Exception as error:  # a digest says that the bytes are those written, not who wrote them
        raise refuse(f"its arrays cannot be read: {type(error).__name__}: {error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """All or nothing, and on the disk when it returns: the old file stays if anything fails. Any number of threads and
    processes may write one file: the last one's stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise CheckpointError(
            explain(
                f"writing `{path}`",
                f"{error.strerror or error}",
                "the previous file, if any, is untouched",
                "another folder, or more space; the fit in memory is not lost",
            )
        ) from error
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """The folder's entries reach the disk in the order of the writes, where the file system can be told so."""
    with contextlib.suppress(OSError):
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def sweep(folder: Path, name: str) -> None:
    """Removes what killed writers of `name` have left; for whoever is alone in the folder."""
    for left in folder.glob(f".{name}.*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink()


_inside = threading.local()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """One writer at a time in a folder, among all threads and processes; a process that dies lets go.

    Gives:  whether it is so: False where the file system has no locks (some network drives) or there is no folder.
    """
    try:
        import fcntl

        entry = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    held = vars(_inside).setdefault("folders", set())
    try:
        found = os.fstat(entry)
        mine = (found.st_dev, found.st_ino)
        if mine in held:
            yield True
            return
        try:
            fcntl.flock(entry, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        held.add(mine)
        try:
            yield True
        finally:
            held.discard(mine)
            fcntl.flock(entry, fcntl.LOCK_UN)  # also of a child that was forked meanwhile
    finally:
        os.close(entry)


def save_carry(path: Path, carry: PyTree, fingerprint: str, history: np.ndarray, extra: dict[str, Any]) -> None:
    """Writes a checkpoint. Raises: CheckpointError."""
    leaves = [np.asarray(a) for a in jax.device_get(jax.tree.leaves(carry))]
    arrays = {f"{i:05d}": a for i, a in enumerate(leaves)} | {"history": history}
    packed = pack(arrays, {"format": FORMAT, "fingerprint": fingerprint, **extra})
    with alone(path.parent) as held:
        if held:
            sweep(path.parent, path.name)
        write_atomically(path, packed)


@contextlib.contextmanager
def or_warned(path: Path) -> Iterator[None]:
    """A checkpoint that cannot be written is a warning: the fit is worth more than its copy."""
    try:
        yield
    except CheckpointError as error:
        kept = f"the last one that was written is kept: `{path}`" if path.is_file() else "there is none to go on from"
        warnings.warn(f"{error}\n  The fit goes on without this checkpoint; {kept}.", RuntimeWarning, stacklevel=2)


def check_writable(path: Path) -> None:
    """Raises: CheckpointError where no checkpoint can be written, before the fit has taken any time."""
    probe = path.with_name(f"{path.name}.probe")
    write_atomically(probe, b"")
    with contextlib.suppress(OSError):
        probe.unlink()


def load_carry(path: Path, like: PyTree, fingerprint: str) -> tuple[PyTree, np.ndarray, dict[str, Any]]:
    """(carry with the structure of `like`, history, extra); refuses a damaged one, and one of another composition."""
    header, arrays = unpack(path, FORMAT)
    history = arrays.pop("history", None)
    if history is None or history.ndim != 1 or history.dtype.kind != "f":
        because = "a damaged file must not be taken for a result"
        raise CheckpointError(
            explain(f"resuming from `{path}`", "it has no history", because, "an older copy, or a new run")
        )
    leaves, treedef = jax.tree.flatten(like)
    saved = [arrays[k] for k in sorted(arrays)]
    same = len(saved) == len(leaves) and all(
        a.shape == b.shape and a.dtype == b.dtype for a, b in zip(saved, leaves, strict=True)
    )
    if header.get("fingerprint") != fingerprint or not same:
        raise CheckpointError(
            explain(
                f"resuming from `{path}`",
                "it was written by another model, data, seed or choice of options",
                "going on from it would mix two fits",
                "the same call as before, or another checkpoint folder",
            )
        )
    return jax.tree.unflatten(treedef, [jnp.asarray(a) for a in saved]), history, header


class Clock:
    """Says when the next checkpoint is due."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
