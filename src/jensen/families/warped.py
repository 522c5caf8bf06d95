"""What all flows share: a Gaussian, seen through an invertible map, and how it starts."""

import abc
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..tree import Layout, default_float
from .base import PLAIN, UNSIZED, AbstractPlain
from .full_rank import FullRank
from .gaussian import log_normal_from_noise, sized
from .mean_field import MeanField
from .noise import StandardNormal
from .triangular import solve_lower

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

FLOW = PLAIN | {Fact.REPARAMETERISED}


class AbstractWarped(AbstractPlain):
    """z = mu + L T(eps), eps ~ N(0, I), of any invertible T. T is the identity at the start, so that q then is the Gaussian
    N(mu, L L^T), or near it where an encoder computes T.

    base: that Gaussian.   arrays: what is trained of T.
    """

    base: AbstractVar[FullRank | MeanField]
    arrays: AbstractVar[Any]

    @abc.abstractmethod
    def begin(self, key: Array, dim: int) -> PyTree:
        """`arrays` at the start, for so many coordinates."""

    @abc.abstractmethod
    def map(self) -> Any:
        """T: `transform(eps)`, `transform_and_log_det(eps)` and `inverse_and_log_det(y)`, log determinants of the map
        that was asked for."""

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        sized(type(self).__name__, self.base.layout, latents)
        if self.base.layout is not None:
            return self
        base = self.base.bind(latents, rows, key)
        made = base, self.begin(key, coordinates(type(self).__name__, base.layout))
        return eqx.tree_at(lambda q: (q.base, q.arrays), self, made, is_leaf=lambda a: a is None)

    def _noise_and_log_det(self, draw: PyTree) -> tuple[Array, Array]:
        u = (self.base.layout.ravel(draw) - self.base.loc) * jnp.exp(-self.base.log_scale)
        if isinstance(self.base, FullRank):
            u = solve_lower(jnp.eye(u.size, dtype=u.dtype) + jnp.tril(self.base.lower, -1), u)
        return self.map().inverse_and_log_det(u.astype(default_float()))

    def noise_of(self, draw: PyTree) -> Float[Array, " D"]:
        """The eps of a draw: inverse of `transform`."""
        return self._noise_and_log_det(draw)[0]

    def log_prob(self, draw):
        eps, log_det = self._noise_and_log_det(draw)
        return log_normal_from_noise(eps, self.base.log_scale) + log_det


class AbstractFlow(AbstractWarped):
    """A `map` whose log determinant comes with it: all but `ContinuousFlow`."""

    def noise_law(self):
        return StandardNormal(self.base.loc.shape)

    def transform(self, noise):
        return self.base.transform(self.map().transform(noise.astype(default_float())))

    def transform_and_log_ratio(self, noise):
        """log q = log N(eps) - log |dT/deps| - log |L|: no inverse."""
        u, log_det = self.map().transform_and_log_det(noise.astype(default_float()))
        return self.base.transform(u), log_normal_from_noise(noise, self.base.log_scale) - log_det


def start_base(
    name: str, shape: PyTree, loc: PyTree, scale: PyTree, cholesky: Array | None, diagonal: bool
) -> FullRank | MeanField:
    """The Gaussian of a new flow; unsized if nothing tells its shape."""
    if shape is None and loc is not None:
        shape = jax.tree.map(jnp.shape, loc)
    if shape is None and cholesky is not None:
        shape = jnp.shape(cholesky)[:1]
    base = (MeanField if diagonal else FullRank)(shape, loc=loc, scale=scale)
    if shape is not None and cholesky is not None:
        base = _with_cholesky(name, base, np.asarray(cholesky))
    return base


def start_arrays(q: AbstractWarped) -> PyTree:
    """The arrays of a new flow whose `base` is set; UNSIZED if that is."""
    layout = q.base.layout
    return UNSIZED if layout is None else q.begin(jr.key(0), coordinates(type(q).__name__, layout))


def coordinates(name: str, layout: Layout) -> int:
    """How many there are, for a family that moves one by the others."""
    if layout.size < 2:
        asked = f"`{name}` for latents of shape {layout.shape_tree()}"
        because, instead = "each layer moves some coordinates as the others say", "Mixture(), or MeanField()"
        raise ModelError(explain(asked, f"they have {layout.size} coordinate", because, instead))
    return layout.size


def _with_cholesky(name: str, base: FullRank | MeanField, factor: np.ndarray) -> FullRank:
    n = base.loc.shape[0]
    good = factor.shape == (n, n) and (np.diagonal(factor) > 0).all() and not np.triu(factor, 1).any()
    if not good or isinstance(base, MeanField):
        wrong = "it is not a Cholesky factor" if not good else "diagonal=True contradicts it"
        because, instead = "L of N(mu, L L^T) is lower-triangular with a positive diagonal", f"({n}, {n}), or scale=..."
        raise ModelError(explain(f"`{name}(cholesky=...)` of shape {factor.shape}", wrong, because, instead))
    scale = np.diagonal(factor)
    arrays = np.log(scale), np.tril(factor, -1) / scale[:, None]
    return eqx.tree_at(lambda q: (q.log_scale, q.lower), base, tuple(jnp.asarray(a, default_float()) for a in arrays))
