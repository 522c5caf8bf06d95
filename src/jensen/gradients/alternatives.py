"""Estimators that compare each draw with other draws: reflections, swaps, flips of one coordinate, weak derivatives."""

import abc
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ..facts import Fact
from ..families.base import AbstractDistribution
from .base import AbstractSimple, Bound, Terms

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractAlternatives(AbstractSimple):
    """grad E f(z) = E sum_m (f(z_m) - f(z)) grad w_m, for every function f of one draw.

    With K draws, f is g(l_1..l_K) as a function of draw k, the others fixed: the gradient is the sum over k.
    same_law: each alternative alone has the law q. Then they all count in the value and in the model's gradient.
    """

    same_law: AbstractVar[bool]

    @abc.abstractmethod
    def alternatives(self, q: AbstractDistribution, noise: PyTree) -> tuple[PyTree, PyTree, Float[Array, " M"]]:
        """(draw, M other draws on a leading axis, weights w_m with a live gradient), unbatched."""

    def terms(self, noise, bound, carry):
        # for a linear objective the direct gradient of -log q has mean zero: left out
        held = bound.stop("q") if Fact.LINEAR in bound.objective.facts else bound
        draws, others, weights = bound.map(lambda m, q, x, e: self.alternatives(q, e), noise)
        weights = jnp.moveaxis(weights, -1, 0)  # (M, K, *plate)
        shape = weights.shape
        draws, others = jax.tree.map(stop_gradient, (draws, others))
        front = lambda a: jnp.moveaxis(a, len(shape) - 1, 0)
        others = jax.tree.map(lambda a: front(a).reshape((shape[0] * shape[1], *front(a).shape[2:])), others)
        if self.same_law:
            every = held.log_weight(jax.tree.map(lambda *a: jnp.concatenate(a), draws, others))
            log_w = every.reshape((shape[0] + 1, *shape[1:]))
            value = jax.vmap(bound.reduce)(log_w).mean(0)
        else:
            own = held.log_weight(draws)
            value = bound.reduce(own)
            log_w = jnp.concatenate([own[None], bound.stop("q", "model").log_weight(others).reshape(shape)])
        return Terms(value + (_changes(bound, stop_gradient(log_w)) * weights).sum((0, 1)), value)


def _changes(bound: Bound, log_w: Array) -> Array:
    """(1 + M, K, *plate) -> g(l with l_k replaced by its m-th alternative) - g(l), (M, K, *plate)."""
    n = log_w.shape[1]
    if Fact.LINEAR in bound.objective.facts:
        return (log_w[1:] - log_w[0]) / n
    reduce = bound.objective.reduce

    def change(l):
        replaced = jnp.where(jnp.eye(n, dtype=bool), l[1:, :, None], l[0])
        return jax.vmap(jax.vmap(reduce))(replaced) - reduce(l[0])

    return jax.vmap(change, in_axes=-1, out_axes=-1)(log_w) if bound.plate else change(log_w)
