"""What the Gaussian families share: the latents as one vector, the constants, and the shape check."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..errors import ModelError, explain
from ..tree import Layout

LOG_2PI = math.log(2 * math.pi)


def sized(name: str, layout: Layout | None, latents: PyTree) -> Layout:
    """The layout of `latents`, which must be `layout` if the family already has one."""
    wanted = Layout(latents)
    if wanted.size == 0:
        raise ModelError(
            explain(
                f"`{name}` for a model without latents",
                "there is nothing to infer",
                "q needs at least one coordinate",
                "a model with at least one latent site",
            )
        )
    if layout is not None and layout != wanted:
        raise ModelError(
            explain(
                f"`{name}` of shape {layout.shape_tree()} for latents of shape {wanted.shape_tree()}",
                "the shapes differ",
                "q must be a distribution over the model's latents",
                f"{name}() without a shape: it takes the model's",
            )
        )
    return wanted


def check_scale(name: str, scale: PyTree) -> None:
    """Every starting standard deviation must be positive."""
    if not all(bool((np.asarray(a) > 0).all()) for a in jax.tree.leaves(scale)):
        asked = f"`{name}(scale={scale})`"
        raise ModelError(explain(asked, "the scale is not positive", "it is a standard deviation", "scale=0.1"))


def start_scale(scale: PyTree) -> float:
    """The one number an unsized family keeps until it is sized."""
    return float(scale) if isinstance(scale, (int, float)) else 0.1


def start_log_scale(layout: Layout, scale: PyTree, dtype) -> Array:
    """(D,) from a number or a tree like the latents."""
    if isinstance(scale, (int, float)):
        return jnp.full(layout.size, math.log(scale), dtype)
    return jnp.log(layout.ravel(scale)).astype(dtype)


def log_normal_from_noise(eps: Array, log_scale: Array) -> Array:
    """log N(loc + e^{log_scale} eps; loc, e^{2 log_scale}), summed: the quadratic needs no division."""
    return (-0.5 * eps**2 - log_scale - 0.5 * LOG_2PI).sum()


def gaussian_entropy(log_scale: Array) -> Array:
    """H = sum log sigma + D/2 (1 + log 2 pi)."""
    return log_scale.sum() + 0.5 * log_scale.size * (1 + LOG_2PI)


def expected_log_normal(z_mean: Array, z_variance: Array, loc: Array, log_scale: Array) -> Array:
    """E log N(z; loc, scale^2) when z has these marginal moments."""
    return (-0.5 * (z_variance + (z_mean - loc) ** 2) * jnp.exp(-2 * log_scale) - log_scale - 0.5 * LOG_2PI).sum()
