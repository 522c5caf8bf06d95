"""Leave-one-out score function."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from .base import AbstractSimple, Terms
from .requirements import FRESH, INDEPENDENT, SCORE


def leave_one_out_signal(reduce: Callable) -> Callable:
    """l_1..K -> signal_k = g(l) - g(l with l_k replaced by the mean of the others), (K,)."""

    def signal(log_w):
        n = log_w.shape[0]
        others = (log_w.sum() - log_w) / (n - 1)
        without = jnp.where(jnp.eye(n, dtype=bool), others[:, None], log_w[None, :])
        return reduce(log_w) - jax.vmap(reduce)(without)

    return signal


class LeaveOneOut(AbstractSimple):
    """Leave-one-out score function: RLOO for the ELBO, VIMCO for IWAE.

    Definition: grad = E[ sum_k signal_k d log q(z_k)/dphi + dg/dphi ], signal_k = g(l) - g(l, l_k <- mean of others).
    Bias:       none: the subtracted term does not depend on z_k.   Cost: K evaluations; no gradient of log p in z.
    Reference:  Mnih and Rezende (2016), equations 8-10; Kool, van Hoof and Welling (2019).  [mnih2016vimco]
    """

    requires: ClassVar = (SCORE, FRESH, INDEPENDENT)
    min_samples: ClassVar = 2
    unbiased: ClassVar = True
    role: ClassVar = "score"

    def signal(self, bound, log_w):
        """(K, *plate), stopped."""
        return stop_gradient(bound.over_data(leave_one_out_signal(bound.objective.reduce), log_w))

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        value = bound.reduce(log_w)
        return Terms(value + (self.signal(bound, log_w) * bound.log_prob(draws)).sum(0), value)
