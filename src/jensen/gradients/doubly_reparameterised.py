"""Doubly reparameterised gradient."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..facts import Fact, Requirement
from .base import AbstractSimple, Terms
from .requirements import DIFFERENTIABLE, FRESH, REPARAMETERISED

_ZERO_MEAN = Requirement(
    "family", Fact.ZERO_MEAN_SCORE, "the direct gradient of log q is dropped because its mean is zero", "Pathwise()"
)


class DoublyReparameterised(AbstractSimple):
    """Sticking the landing and DReG as one.

    Definition: sum_k (g_k - g_kk) (dl_k / dz_k) (dz_k / dphi), with g_k, g_kk the first and second (diagonal)
                derivatives of the reduction g. Linear g: sticking the landing. Log-mean-exp: squared normalised weights.
    Derivation: the direct term -sum_k E[g_k d log q(z_k) / dphi] is reparameterized once more:
                E[h(z) d log q / dphi] = E[h'(z) dz / dphi], and dg_k / dz_k = g_kk dl_k / dz_k.
    Bias:       none.   Cost: one log-density gradient and one more evaluation a draw.
    Reference:  Roeder, Wu and Duvenaud (2017); Tucker, Lawson, Gu and Maddison (2019).  [tucker2019dreg]
    """

    requires: ClassVar = (REPARAMETERISED, DIFFERENTIABLE, _ZERO_MEAN, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None

    def terms(self, noise, bound, carry):
        live, reduce = bound.stop("q"), bound.objective.reduce  # q's own parameters act through the path only
        z = bound.draw(noise)
        lw = stop_gradient(live.log_weight(z))
        g = bound.over_data(jax.grad(reduce), lw)
        g_diagonal = bound.over_data(lambda l: jnp.diag(jax.hessian(reduce)(l)), lw)
        ratio = jnp.where(g == 0, 0.0, (g - g_diagonal) / jnp.where(g == 0, 1.0, g))
        # one backward pass for both: the model's parameters see g_k, the path sees g_k * ratio_k = g_k - g_kk
        return Terms((g * live.log_weight(_scale_cotangent(z, ratio))).sum(0), bound.reduce(lw))


def _scale_cotangent(tree: PyTree, c: Array) -> PyTree:
    """Identity whose cotangent is multiplied by `c` (leading axes). Forward is the very same array, so that XLA
    shares the forward pass with an evaluation at `tree`."""

    @jax.custom_vjp
    def identity(a, c):
        return a

    def backward(c, g):
        return g * c.reshape(c.shape + (1,) * (g.ndim - c.ndim)), jnp.zeros_like(c)

    identity.defvjp(lambda a, c: (a, c), backward)
    return jax.tree.map(lambda a: identity(a, c), tree)
