"""Pathwise gradient with a Taylor control variate."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient

from ..errors import OptionError, explain
from ..facts import Fact, Requirement
from .base import AbstractSimple, Terms
from .requirements import DIFFERENTIABLE, FRESH, LINEAR, REPARAMETERISED

_HESSIAN = Requirement(
    "model", Fact.TWICE_DIFFERENTIABLE, "the control variate is made of second derivatives", "Pathwise()"
)
_MOMENTS = Requirement("family", Fact.MOMENTS, "the control variate's mean needs q's means and variances", "Pathwise()")
_SEPARATE = Requirement(
    "family",
    Fact.INDEPENDENT_COORDINATES,
    "the mean of the quadratic term is a function of variances only where nothing is correlated",
    "MeanField(), or Pathwise()",
)


class TaylorControl(AbstractSimple):
    """Pathwise gradient less the path gradient of a quadratic (Taylor) model of f, whose mean is known.

    Definition: f~(z) = f(m) + g'(z - m) + (z - m)' H (z - m) / 2 at m = E z, with m, g, H held fixed; the estimate is
                grad f(z) - [grad f~(z) - grad (g' E z + diag(H)' Var z / 2)], z = T_phi(eps). For a Gaussian: the mean's
                gradient loses H (z - m), the scale's (g + H (z - m)) eps - diag(H) sigma.
    Arguments:  hessian: "full": H at m, once a datum; "products": one product H (z - m) a draw, and the quadratic term is
                left in the scales' gradient.
    Bias:       none.   Cost: Pathwise, and D Hessian-vector products a datum ("full") or one a draw ("products").
    Reference:  Miller, Foti, D'Amour and Adams (2017), sections 3.1-3.3.  [miller2017reducing]
    """

    hessian: str = eqx.field(static=True)
    requires: ClassVar = (REPARAMETERISED, DIFFERENTIABLE, _HESSIAN, _MOMENTS, _SEPARATE, LINEAR, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None

    def __init__(self, hessian: Literal["full", "products"] = "full"):
        if hessian not in ("full", "products"):
            asked = f"`TaylorControl(hessian={hessian!r})`"
            because = "it says how second derivatives are taken"
            raise OptionError(explain(asked, "it is unknown", because, '"full" or "products"'))
        self.hessian = hessian

    def terms(self, noise, bound, carry):
        draws, log_w = bound.draw_and_log_weight(noise)
        value = bound.reduce(log_w)
        z = bound.map(lambda m, q, x, d: ravel_pytree(q.latent(d))[0], draws)  # (K, *plate, D)
        mean, variance = bound.each(lambda q, x: tuple(ravel_pytree(a)[0] for a in q.moments()))
        held, weight = bound.stop("q", "model"), bound.objective.log_weight

        def gradient(m, q, x):
            centre, unravel = ravel_pytree(q.moments()[0])
            return jax.grad(lambda v: weight(m, unravel(v), jnp.zeros(()), x)), centre

        if self.hessian == "products":

            def product(m, q, x, z):
                fn, centre = gradient(m, q, x)
                return jax.jvp(fn, (centre,), (z - centre,))

            g, bend = held.map(product, stop_gradient(z))
            control = (bend * mean + g * (z - mean)).sum(-1)
        else:

            def expand(m, q, x, _):
                fn, centre = gradient(m, q, x)
                return fn(centre), jax.jacfwd(fn)(centre)

            g, h = held.map(expand, jnp.zeros((1, *bound.plate)))
            slope = g + jnp.einsum("...ij,...j->...i", h, stop_gradient(z - mean))
            diagonal = jnp.diagonal(h, axis1=-2, axis2=-1)
            control = (slope * z - g * mean - 0.5 * diagonal * variance).sum(-1)
        return Terms(value - control.mean(0), value)
