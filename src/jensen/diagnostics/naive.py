"""Naive Monte Carlo evidence, from draws of the prior: why it fails, next to importance sampling."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float


def naive_log_evidence(log_likelihood: Callable[[Any], Array], draws: Any) -> Float[Array, ""]:
    """log (1/S) sum_s p(x | z_s), z_s ~ p(z), nats.

    Arguments:  log_likelihood: log p(x | z) of one z.   draws: from the prior, leaves (S, ...).
    Bias:       below log p(x) on average; the average w is unbiased, but its relative variance is
                E_prior[p(x | z)^2] / p(x)^2 - 1, which grows exponentially with the dimension of z and the information in
                x: nearly all draws miss the posterior. For estimates use `importance_log_evidence`, or `fit.evidence()`.
    """
    return importance_log_evidence(log_likelihood, draws)


def importance_log_evidence(log_weight: Callable[[Any], Array], draws: Any) -> Float[Array, ""]:
    """log (1/S) sum_s w_s, w = p(x, z) / q(z), z_s ~ q, nats; log_weight: log w of one z."""
    log_w = jax.vmap(log_weight)(draws)
    return logsumexp(log_w) - jnp.log(log_w.shape[0])
