"""Checkpoints: the loop's carry in one file, without pickle; written to a new file and moved into place, so that a
crash or a full disk leaves the old one whole; a digest tells a truncated or altered file.

Format: one line of JSON (format, fingerprint, step, sha256 and size of the rest), then an `.npz` of the leaves in order.
"""

import contextlib
import hashlib
import io
import json
import os
import time
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
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        return header, {k: archive[k] for k in archive.files}


def write_atomically(path: Path, data: bytes) -> None:
    """All or nothing: the old file stays if anything fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            explain(
                f"writing `{path}`",
                f"{error.strerror or error}",
                "the previous file, if any, is untouched",
                "another folder, or more space; the fit in memory is not lost",
            )
        ) from error


def save_carry(path: Path, carry: PyTree, fingerprint: str, history: np.ndarray, extra: dict[str, Any]) -> None:
    leaves = [np.asarray(a) for a in jax.device_get(jax.tree.leaves(carry))]
    arrays = {f"{i:05d}": a for i, a in enumerate(leaves)} | {"history": history}
    header = {"format": FORMAT, "fingerprint": fingerprint, **extra}
    write_atomically(path, pack(arrays, header))


def load_carry(path: Path, like: PyTree, fingerprint: str) -> tuple[PyTree, np.ndarray, dict[str, Any]]:
    """(carry with the structure of `like`, history, extra); refuses a checkpoint of another composition."""
    header, arrays = unpack(path, FORMAT)
    history = arrays.pop("history")
    leaves, treedef = jax.tree.flatten(like)
    saved = [arrays[k] for k in sorted(arrays)]
    same = len(saved) == len(leaves) and all(
        a.shape == b.shape and a.dtype == b.dtype for a, b in zip(saved, leaves, strict=True)
    )
    if header["fingerprint"] != fingerprint or not same:
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
