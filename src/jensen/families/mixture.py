"""Mixtures of one kind of distribution."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from ..errors import ModelError, OptionError, explain
from ..facts import Fact
from ..tree import default_float, split_trainable
from .base import PLAIN, UNSIZED, AbstractDistribution, AbstractPlain, same_law
from .full_rank import FullRank
from .low_rank import LowRank
from .mean_field import MeanField
from .noise import Uniform
from .triangular import solve_lower

_SHARED = PLAIN | {Fact.MOMENTS, Fact.ENUMERABLE}  # what a mixture has if its components have it
_SPREAD = 1.0  # standard deviation of the starting locations


class Mixture(AbstractPlain):
    """Mixture of distributions of one class.

    Definition: q(z) = sum_k w_k q_k(z), w = softmax(logits).
    Arguments:  components: a sequence of distributions of one class and shape: starting values. Left out: `n` copies of
                `component`, their locations (or, without a location, all parameters) moved apart by N(0, 1).
                weights: `(n,)`, > 0, in proportion (default: equal).
                n: how many; component: any plain distribution, sized or not (default `FullRank()`).
    Facts:      those of the component, less REPARAMETERISED unless it is Gaussian, whose draws are reparameterised
                implicitly: their path gradient is that of the conditional distribution functions, dz = -(dS/dz)^-1 dS.
    Cost:       n times that of a component; O(n D^3) for a path gradient.
    Reference:  Gershman, Hoffman and Blei (2012); Figurnov, Mohamed and Mnih (2018), section 3.  [figurnov2018implicit]
    """

    logits: Float[Array, " n"]
    components: Any  # arrays lead with n; UNSIZED until `bind`
    prototypes: tuple[AbstractDistribution, ...]  # the unsized components; () afterwards

    def __init__(
        self,
        components: Sequence[AbstractDistribution] | None = None,
        weights: Sequence[float] | Array | None = None,
        *,
        n: int = 2,
        component: AbstractDistribution | None = None,
    ):
        parts = tuple([FullRank() if component is None else component] * n if components is None else components)
        self.logits = _logits(len(parts), weights)
        ready = all(jax.tree.leaves(q) for q in parts)
        self.components = _stacked(parts if components is not None else _apart(parts, jr.key(0))) if ready else UNSIZED
        self.prototypes = () if ready else parts

    @property
    def facts(self):
        example = self._example()
        path = {Fact.REPARAMETERISED} if any(same_law(example, c) for c in (MeanField, FullRank, LowRank)) else set()
        return (frozenset(example.facts) & _SHARED) | path

    def _example(self) -> Any:
        """One component, of which only shapes are read."""
        one = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
        return self.prototypes[0] if self.prototypes else jax.tree.map(one, self.components)

    def _each(self, fn) -> Any:
        return eqx.filter_vmap(fn)(self.components)

    def kind_of(self, site):
        return self._example().kind_of(site)

    def bind(self, latents, rows, key):
        if not self.prototypes:
            self._example().bind(latents, rows, key)  # refuses another shape
            return self
        keys = jr.split(key, len(self.prototypes) + 1)
        parts = tuple(q.bind(latents, rows, k) for q, k in zip(self.prototypes, keys[1:], strict=True))
        made = _stacked(_apart(parts, keys[0])), ()
        return eqx.tree_at(lambda q: (q.components, q.prototypes), self, made, is_leaf=lambda a: a is None)

    def noise_law(self):
        return Uniform(()), self._example().noise_law()

    def transform(self, noise):
        """The component by inverse CDF of the weights, then its own draw."""
        u, own = noise
        chosen = (u > jnp.cumsum(jax.nn.softmax(self.logits))[:-1]).sum()
        draw = jax.tree.map(lambda a: a[chosen], self._each(lambda q: q.transform(own)))
        if Fact.REPARAMETERISED not in self.facts:
            return draw
        layout = self.components.layout
        return layout.unravel(_implicit(stop_gradient(layout.ravel(draw)), self._gaussians()))

    def log_prob(self, draw):
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + self._each(lambda q: q.log_prob(draw)))

    def moments(self):
        """m = sum w m_k and v = sum w (v_k + m_k^2) - m^2, the latter about m."""
        w = jax.nn.softmax(self.logits)
        means, variances = self._each(lambda q: q.moments())
        mean = jax.tree.map(lambda a: jnp.tensordot(w, a, 1), means)
        spread = lambda v, a, m: jnp.tensordot(w, v + (a - m) ** 2, 1)
        return mean, jax.tree.map(spread, variances, means, mean)

    def support(self):
        """The components' own."""
        return jax.tree.map(lambda a: a[0], self._each(lambda q: q.support()))

    def _gaussians(self) -> tuple[Array, Array, Array]:
        """(log weights, means (n, D), Cholesky factors (n, D, D))."""
        return jax.nn.log_softmax(self.logits), self.components.loc, self._each(_cholesky)


def _cholesky(q: Any) -> Array:
    if isinstance(q, FullRank):
        return q.cholesky()
    scale = jnp.exp(q.log_scale)
    if isinstance(q, MeanField):
        return jnp.diag(scale)
    factor = scale[:, None] * q.factor
    return jnp.linalg.cholesky(jnp.diag(scale**2) + factor @ factor.T)


# ---- implicit reparameterisation ------------------------------------------------------------------------------------


def _conditionals(z: Array, gaussians: tuple[Array, Array, Array]) -> Array:
    """S (D,): S_d = Q(z_d | z_1 .. z_{d-1}), the conditional distribution functions of the mixture, uniform under q.

    With eps_k = L_k^-1 (z - mu_k), component k's conditional is Phi(eps_kd), and its weight given z_<d is proportional
    to w_k prod_{i<d} N(eps_ki) / L_k,ii.
    """
    log_w, loc, chol = gaussians
    eps = jax.vmap(solve_lower)(chol, z - loc)
    log_density = -0.5 * eps**2 - jnp.log(jnp.diagonal(chol, axis1=1, axis2=2))
    before = jnp.cumsum(log_density, 1) - log_density
    return (jax.nn.softmax(log_w[:, None] + before, 0) * jax.scipy.stats.norm.cdf(eps)).sum(0)


@jax.custom_jvp
def _implicit(z: Array, gaussians: tuple[Array, Array, Array]) -> Array:
    """z, with the derivative in the mixture's parameters that keeps S(z) fixed."""
    return z


@_implicit.defjvp
def _implicit_jvp(primals, tangents):
    z, gaussians = primals
    moved = jax.jvp(lambda g: _conditionals(z, g), (gaussians,), (tangents[1],))[1]
    slope = jnp.tril(jax.jacfwd(_conditionals)(z, gaussians))
    return z, -solve_lower(slope, moved)


# ---- starting values ------------------------------------------------------------------------------------------------


def _logits(n: int, weights: Any) -> Array:
    if n < 1:
        raise OptionError(explain("`Mixture(...)`", "there is no component", "q must be something", "n=2 or more"))
    if weights is None:
        return jnp.zeros(n, default_float())
    w = np.asarray(weights, float)
    if w.shape != (n,) or not (np.isfinite(w) & (w > 0)).all():
        asked, wrong = f"`Mixture(weights={weights})`", f"it is not {n} positive numbers"
        because = "each component has a weight, and one of 0 would never be drawn"
        raise OptionError(explain(asked, wrong, because, f"weights of shape ({n},), in proportion"))
    return jnp.asarray(np.log(w / w.sum()), default_float())


def _apart(parts: tuple, key: Array) -> tuple:
    """The same distributions, moved apart."""
    shift = lambda tree, k: jax.tree.map(lambda a: a + _SPREAD * jr.normal(k, a.shape, a.dtype), tree)

    def moved(q: Any, k: Array) -> Any:
        if getattr(q, "loc", None) is not None:
            return eqx.tree_at(lambda q: q.loc, q, shift(q.loc, k))
        trained, rest = split_trainable(q)
        return eqx.combine(shift(trained, k), rest)

    return tuple(moved(q, k) for q, k in zip(parts, jr.split(key, len(parts)), strict=True))


def _stacked(parts: tuple) -> Any:
    """One module whose arrays lead with the component."""
    leaves = [jax.tree.leaves(q) for q in parts]
    kinds = {(type(q).__name__, getattr(q, "layout", None), *(a.shape for a in jax.tree.leaves(q))) for q in parts}
    if len(kinds) > 1 or Fact.LOG_PROB not in parts[0].facts:
        wrong = f"the components are {', '.join(sorted({type(q).__name__ for q in parts}))}, of {len(kinds)} kinds"
        if len(kinds) == 1:
            wrong = f"`{type(parts[0]).__name__}` does not tell log q of a latent"
        because = "they are evaluated as one, and log q is the log of a sum"
        instead = "components of one class and shape: (FullRank(shape, loc=...), FullRank(shape, loc=...))"
        raise ModelError(explain("`Mixture(...)`", wrong, because, instead))
    return jax.tree.unflatten(jax.tree.structure(parts[0]), [jnp.stack(a) for a in zip(*leaves, strict=True)])
