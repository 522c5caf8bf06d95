"""Grey values as probabilities of bits."""

import functools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from ..arrays import host
from ..errors import DataError, check_shares, explain


class DynamicallyBinarized:
    """Rows of bits that are drawn anew at every step that uses them (dynamic binarisation), which regularises.

    Definition: x_ij ~ Bernoulli(p_ij), anew at each optimiser step; `fit(model, DynamicallyBinarized(p))`, and so the
                `fit(X)` of the zoo. Whatever reads an array (scores, checks, the verdict, EM) reads one draw.
    Arguments:  probabilities: values in [0, 1], a row first (images: pixel / 255).   seed: of that one draw.
    Raises:     DataError for values outside [0, 1], or not numbers.
    Cost:       a uniform number a value and step.
    Notes:      Scores of models fitted to one fixed binarisation and to this one are not of the same problem.
    Reference:  Salakhutdinov and Murray (2008); Burda, Grosse and Salakhutdinov (2016).  [salakhutdinov2008quantitative]
    """

    def __init__(self, probabilities: Any, seed: int = 0):
        p = host("DynamicallyBinarized(probabilities)", probabilities, finite=False)
        asked = f"`DynamicallyBinarized` of an array of shape {p.shape} and dtype {p.dtype}"
        if p.ndim == 0:
            raise DataError(explain(asked, "it is no array of numbers", "a row is a datum", "pixels / 255"))
        check_shares(asked, p, "a value is the probability of a 1", "pixels / 255")
        self.probabilities, self.seed = p.astype(np.float32), seed

    @functools.cached_property
    def _bits(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        bits = (rng.random(self.shape, np.float32) < self.probabilities).astype(np.uint8)
        bits.setflags(write=False)  # every reading is of this one array
        return bits

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._bits.astype(dtype or np.uint8, copy=bool(copy))

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.probabilities.shape

    @property
    def ndim(self) -> int:
        return self.probabilities.ndim

    def mean(self, axis: int | None = None) -> np.ndarray:
        """Of the probabilities: of the bits in the long run."""
        return self.probabilities.mean(axis, dtype=np.float64).astype(np.float32)

    def __repr__(self) -> str:
        return f"DynamicallyBinarized(shape={self.shape})"


class Redrawn(eqx.Module):
    """Such rows where the loop has them: indexed as an array, drawn from at each step."""

    probabilities: Float[Array, "n ..."]

    def draw(self, key: Array) -> Bool[Array, "n ..."]:
        return jr.uniform(key, self.probabilities.shape, self.probabilities.dtype) < self.probabilities


def for_loop(data: Any, rows: Any) -> Any:
    """What the loop is given for data that everything else reads as these rows."""
    return Redrawn(jnp.asarray(data.probabilities)) if isinstance(data, DynamicallyBinarized) else rows


def drawn(key: Array, rows: Any) -> Any:
    """This step's rows."""
    return rows.draw(key).astype(jnp.uint8) if isinstance(rows, Redrawn) else rows
