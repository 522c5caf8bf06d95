"""A checkpoint of a fit that is not by gradients of q: what it is of, when it is due, and what it holds."""

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ..errors import CheckpointError
from ..function import description
from .checkpoint import Clock, load_carry, save_carry


def fingerprint(what: Any, arrays: Iterable[Any]) -> str:
    """Of a fit: the same for the same options, model and data, and for no others."""
    digest = hashlib.sha256(repr(description(what)).encode())
    for leaf in arrays:
        a = np.ascontiguousarray(leaf)
        digest.update(repr((a.shape, str(a.dtype))).encode())
        digest.update(a.data)
    return digest.hexdigest()[:24]


class Keeper:
    """`folder/name.ckpt`, written every so many seconds and at the end; nothing at all without a folder.

    A checkpoint that cannot be written warns, once, and the fit goes on. One that cannot be read, or is of another fit,
    is refused: CheckpointError.
    """

    def __init__(self, folder: str | Path | None, name: str, seconds: float):
        self.path = None if folder is None else Path(folder) / f"{name}.ckpt"
        self.clock, self.print, self.warned = Clock(seconds), "", False

    def of(self, what: Any, arrays: Iterable[Any]) -> None:
        """Says which fit this is; read only if there is a folder."""
        if self.path is not None:
            self.print = fingerprint(what, arrays)

    def load(self, like: PyTree, part: int = 0) -> PyTree | None:
        """The state to go on from, or None. part: of a fit of several."""
        path = self._path(part)
        return None if path is None or not path.exists() else load_carry(path, like, self.print)[0]

    def _path(self, part: int) -> Path | None:
        return self.path if self.path is None or not part else self.path.with_stem(f"{self.path.stem}-{part}")

    @property
    def due(self) -> bool:
        """Is it time to write?"""
        return self.path is not None and self.clock.due()

    def save(self, state: PyTree, step: int, part: int = 0) -> None:
        """Writes it, where there is a folder."""
        path = self._path(part)
        if path is None:
            return
        try:
            save_carry(path, state, self.print, np.zeros(0), {"step": step})
        except CheckpointError as error:
            if not self.warned:
                warnings.warn(f"There is no checkpoint: {error}", stacklevel=2)
            self.warned = True
