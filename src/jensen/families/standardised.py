"""Standardisations of laws without a simple path: eps = (t(z) - E t(z)) / sd t(z), t the log or the logit."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, polygamma
from jaxtyping import Array


class Standardisation(NamedTuple):
    """t, its inverse, the logarithm of the inverse's slope, and (mean, variance) of t(z) given the parameters."""

    to: Callable
    back: Callable
    log_slope: Callable
    moments: Callable


def _gamma(concentration: Array, rate: Array) -> tuple[Array, Array]:
    return digamma(concentration) - jnp.log(rate), polygamma(1, concentration)


def _beta(concentration1: Array, concentration0: Array) -> tuple[Array, Array]:
    mean = digamma(concentration1) - digamma(concentration0)
    return mean, polygamma(1, concentration1) + polygamma(1, concentration0)


def _logit_slope(t: Array) -> Array:
    return jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t)


STANDARD: dict[str, Standardisation] = {
    "Gamma": Standardisation(jnp.log, jnp.exp, lambda t: t, _gamma),
    "Beta": Standardisation(lambda z: jnp.log(z) - jnp.log1p(-z), jax.nn.sigmoid, _logit_slope, _beta),
}
