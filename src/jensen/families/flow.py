"""Normalizing flows: a Gaussian, seen through a trained invertible map."""

from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, OptionError, explain
from ..facts import Fact
from ..tree import Layout, default_float
from .base import PLAIN, UNSIZED, AbstractPlain
from .bijections import Stack, check_stack
from .full_rank import FullRank
from .gaussian import log_normal_from_noise, sized
from .mean_field import MeanField
from .noise import StandardNormal
from .triangular import solve_lower

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractFlow(AbstractPlain):
    """z = mu + L T(eps), eps ~ N(0, I). T is the identity at the start, so that q then is the Gaussian N(mu, L L^T).

    base: that Gaussian.   arrays: what is trained of T.   stack: the rest of T.
    """

    base: AbstractVar[FullRank | MeanField]
    arrays: AbstractVar[tuple[Array, ...]]
    stack: AbstractVar[Stack]
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED}

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        sized(type(self).__name__, self.base.layout, latents)
        if self.base.layout is not None:
            return self
        base = self.base.bind(latents, rows, key)
        made = base, _arrays(type(self).__name__, self.stack, base, key)
        return eqx.tree_at(lambda q: (q.base, q.arrays), self, made, is_leaf=lambda a: a is None)

    def _map(self):
        return self.stack(self.arrays, self.base.loc.shape[0])

    def noise_law(self):
        return StandardNormal(self.base.loc.shape)

    def transform(self, noise):
        return self.base.transform(self._map().transform(noise.astype(default_float())))

    def transform_and_log_ratio(self, noise):
        """log q = log N(eps) - log |dT/deps| - log |L|: no inverse."""
        u, log_det = self._map().transform_and_log_det(noise.astype(default_float()))
        return self.base.transform(u), log_normal_from_noise(noise, self.base.log_scale) - log_det

    def _noise_and_log_det(self, draw: PyTree) -> tuple[Array, Array]:
        u = (self.base.layout.ravel(draw) - self.base.loc) * jnp.exp(-self.base.log_scale)
        if isinstance(self.base, FullRank):
            u = solve_lower(jnp.eye(u.size, dtype=u.dtype) + jnp.tril(self.base.lower, -1), u)
        return self._map().inverse_and_log_det(u.astype(default_float()))

    def noise_of(self, draw: PyTree) -> Float[Array, " D"]:
        """The noise of a draw: inverse of `transform`."""
        return self._noise_and_log_det(draw)[0]

    def log_prob(self, draw):
        eps, log_det = self._noise_and_log_det(draw)
        return log_normal_from_noise(eps, self.base.log_scale) + log_det


class RealNVP(AbstractFlow):
    """Affine coupling flow, RealNVP.

    Definition: z = mu + L T(eps); T of `n_layers` layers (a, b) -> (a, b e^{s(a)} + t(a)), the halves a, b chosen anew by
                permutations, s and t a network.
    Arguments:  shape: the latents' shape or tree of shapes (at least 2 coordinates); left out, it is the model's.
                n_layers; width, depth, activation: hidden layers of each network.
                loc: starting means, a tree like the latents (default 0).   scale: starting sd, > 0 (default 0.1), a number or
                a tree like the latents; or cholesky: `(D, D)` lower-triangular L, in the order of the tree's leaves.
                diagonal: L is diagonal.
    Cost:       O(D width) a layer for a draw, and as much for its density: the inverse is as cheap as the map.
    Reference:  Dinh, Sohl-Dickstein and Bengio (2017).  [dinh2017realnvp]
    """

    base: FullRank | MeanField
    arrays: tuple[Array, ...]
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 6, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool = False,
    ):  # fmt: skip
        self.stack = Stack("coupling", n_layers, width, depth, activation)
        self.base, self.arrays = _start("RealNVP", self.stack, shape, loc, scale, cholesky, diagonal)


class Spline(AbstractFlow):
    """Rational-quadratic neural spline flow, by coupling (NSF).

    Definition: as `RealNVP`, but a layer maps b first by a monotone rational-quadratic spline on [-interval, interval], the
                identity beyond, whose knots are computed from a; then by the affine map.
    Arguments:  as for `RealNVP`.   knots: inner knots of a spline, 2 or more.   interval: in standard deviations.
    Cost:       about five times that of `RealNVP`.
    Reference:  Durkan, Bekasov, Murray and Papamakarios (2019).  [durkan2019spline]
    """

    base: FullRank | MeanField
    arrays: tuple[Array, ...]
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, width: int = 64, depth: int = 1, activation: str = "silu",
        knots: int = 8, interval: float = 4.0, loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None,
        diagonal: bool = False,
    ):  # fmt: skip
        if knots < 2 or not interval > 0:
            asked, because = f"`Spline(knots={knots}, interval={interval})`", "a spline has knots on an interval"
            raise OptionError(explain(asked, "out of range", because, "knots >= 2 and interval > 0"))
        self.stack = Stack("coupling", n_layers, width, depth, activation, knots, float(interval))
        self.base, self.arrays = _start("Spline", self.stack, shape, loc, scale, cholesky, diagonal)


class InverseAutoregressive(AbstractFlow):
    """Inverse autoregressive flow, IAF.

    Definition: as `RealNVP`, with layers x_d -> x_d e^{s_d(x_<d)} + t_d(x_<d), by one masked network; the order of the
                coordinates is reversed from layer to layer.
    Arguments:  as for `RealNVP`.
    Cost:       a draw with its log q: one network a layer. The density of a given draw: D networks a layer, one after the
                other; so prefer `Pathwise()` to `DoublyReparameterised()` where D is large.
    Reference:  Kingma et al. (2016); Germain et al. (2015) for the masks.  [kingma2016iaf]
    """

    base: FullRank | MeanField
    arrays: tuple[Array, ...]
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool = False,
    ):  # fmt: skip
        self.stack = Stack("autoregressive", n_layers, width, depth, activation)
        self.base, self.arrays = _start("InverseAutoregressive", self.stack, shape, loc, scale, cholesky, diagonal)


class MaskedAutoregressive(AbstractFlow):
    """Masked autoregressive flow, MAF: the inverse of `InverseAutoregressive`'s map.

    Arguments:  as for `RealNVP`.
    Cost:       the density of a given draw: one network a layer. A draw: D networks a layer, one after the other.
    Reference:  Papamakarios, Pavlakou and Murray (2017).  [papamakarios2017maf]
    """

    base: FullRank | MeanField
    arrays: tuple[Array, ...]
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool = False,
    ):  # fmt: skip
        self.stack = Stack("masked", n_layers, width, depth, activation)
        self.base, self.arrays = _start("MaskedAutoregressive", self.stack, shape, loc, scale, cholesky, diagonal)


def _start(name, stack, shape, loc, scale, cholesky, diagonal) -> tuple[FullRank | MeanField, tuple[Array, ...]]:
    """The Gaussian and the arrays of a new flow; unsized if nothing tells its shape."""
    check_stack(name, stack)
    if shape is None and loc is not None:
        shape = jax.tree.map(jnp.shape, loc)
    if shape is None and cholesky is not None:
        shape = jnp.shape(cholesky)[:1]
    base = (MeanField if diagonal else FullRank)(shape, loc=loc, scale=scale)
    if shape is None:
        return base, UNSIZED
    if cholesky is not None:
        base = _with_cholesky(name, base, np.asarray(cholesky))
    return base, _arrays(name, stack, base, jr.key(0))


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


def _arrays(name: str, stack: Stack, base: FullRank | MeanField, key: Array) -> tuple[Array, ...]:
    layout: Layout = base.layout
    if layout.size < 2:
        asked = f"`{name}` for latents of shape {layout.shape_tree()}"
        because, instead = "each layer moves some coordinates as the others say", "Mixture(), or MeanField()"
        raise ModelError(explain(asked, f"they have {layout.size} coordinate", because, instead))
    return stack.start(key, layout.size)
