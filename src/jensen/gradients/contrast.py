"""What the estimators for q without a density share: many draws of q in whitened coordinates, and a Gaussian beside them."""

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact, Requirement
from ..families.gaussian import LOG_2PI
from ..families.noise import Keys, StandardNormal
from ..tree import Layout
from .base import AbstractSimple, Bound
from .requirements import DIFFERENTIABLE, FRESH, LINEAR, REPARAMETERISED

WHOLE_WEIGHT = Requirement(
    "objective", Fact.WHOLE_WEIGHT, "all of log q is estimated, nothing of it has a closed form", "ELBO()"
)
INDEPENDENT = Requirement(
    "plan", Fact.INDEPENDENT, "the draws of a step are also the sample from which q is estimated", "plans.IID()"
)
OF_DRAWS = (REPARAMETERISED, DIFFERENTIABLE, LINEAR, WHOLE_WEIGHT, FRESH, INDEPENDENT)
"""What every estimator needs that sees q through its draws alone."""


class AbstractDrawsOnly(AbstractSimple):
    """An estimator of its own for log q, biased, made from the draws of one step."""

    requires: ClassVar = OF_DRAWS
    min_samples: ClassVar = 32
    unbiased: ClassVar = False
    role: ClassVar = None
    supplies: ClassVar = frozenset({Fact.LOG_RATIO})


PER_DIMENSION = 4  # draws a dimension from which a full covariance is estimated
RIDGE = 1e-3  # of the variances


class Whitening(NamedTuple):
    """z = mean + root u; u has mean 0 and covariance about I. Leaves lead with `plate`."""

    mean: Float[Array, "*P D"]
    root: Float[Array, "*P D D"]  # lower triangular

    def to(self, z: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        return self._solved(z - self.mean, trans=0)

    def back(self, u: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        return self.mean + jnp.einsum("...ij,...j->...i", self.root, u)

    def slope(self, g: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """The gradient in z of what has the gradient g in u."""
        return self._solved(g, trans=1)

    def _solved(self, v: Float[Array, "*N D"], trans: int) -> Float[Array, "*N D"]:
        """All draws are right-hand sides of one system a datum."""
        columns = jnp.moveaxis(v.reshape(-1, *self.mean.shape), 0, -1)
        solved = jax.scipy.linalg.solve_triangular(self.root, columns, lower=True, trans=trans)
        return jnp.moveaxis(solved, -1, 0).reshape(v.shape)

    def log_prob(self, u: Float[Array, "*N D"]) -> Float[Array, " *N"]:
        """log N(z; mean, root root^T) at z = back(u)."""
        return -0.5 * (u**2).sum(-1) - 0.5 * u.shape[-1] * LOG_2PI - self.log_volume()

    def log_volume(self) -> Float[Array, " *P"]:
        return jnp.log(jnp.diagonal(self.root, axis1=-2, axis2=-1)).sum(-1)


def whitening(z: Float[Array, "K *P D"]) -> Whitening:
    """From draws: their mean, and the Cholesky factor of their covariance (its diagonal where they are few)."""
    k, d = z.shape[0], z.shape[-1]
    mean = z.mean(0)
    centred = z - mean
    variance = (centred**2).mean(0) + jnp.finfo(z.dtype).tiny
    if k < PER_DIMENSION * d:
        return Whitening(mean, jnp.sqrt(variance)[..., None] * jnp.eye(d, dtype=z.dtype))
    covariance = jnp.einsum("k...i,k...j->...ij", centred, centred) / k
    return Whitening(mean, jnp.linalg.cholesky(covariance + RIDGE * variance[..., None] * jnp.eye(d, dtype=z.dtype)))


def flat_draws(bound: Bound, noise: PyTree, layout: Layout) -> Float[Array, "K *P D"]:
    """Draws of q, stopped, each as one vector."""
    return stop_gradient(bound.map(lambda m, q, x, e: layout.ravel(q.latent(q.transform(e))), noise))


def latent_layout(bound: Bound) -> Layout:
    return Layout(bound.model.latents)


def log_weights(
    bound: Bound,
    noise: PyTree,
    layout: Layout,
    level: Float[Array, "K *P"],
    slope: Float[Array, "K *P D"],
    above_prior: bool = False,
) -> Float[Array, "K *P"]:
    """The objective's log-weights, log q(z_k) estimated by a number and a slope; both stopped, and E grad_phi log q = 0.

    above_prior: what is estimated is log q(z) - log p(z).
    """

    def cell(m, q, x, e, level, slope):
        z = q.latent(q.transform(e))
        flat = layout.ravel(z)
        log_q = stop_gradient(level) + stop_gradient(slope) @ (flat - stop_gradient(flat))
        if above_prior:
            log_q = log_q + m.log_density(z, x) - m.log_likelihood(z, x)
        return bound.objective.log_weight(m, z, log_q, x)

    return bound.map(cell, noise, level, slope)


class Contrast(NamedTuple):
    """The law that q is compared with: "adaptive", the Gaussian with q's own moments, or "prior", the model's."""

    kind: str

    def law(self, size: int) -> Any:
        return StandardNormal((size,)) if self.kind == "adaptive" else Keys()

    def draws(self, bound: Bound, noise: PyTree, layout: Layout, white: Whitening) -> Float[Array, "K *P D"]:
        """In the whitened coordinates, stopped."""
        if self.kind == "adaptive":
            return noise
        return stop_gradient(white.to(bound.map(lambda m, q, x, k: layout.ravel(m.sample_joint(k)[0]), noise)))

    def add(self, white: Whitening, u: Array, level: Array, slope: Array) -> tuple[Array, Array]:
        """log q / r, with its gradient in u, to what `log_weights` takes."""
        if self.kind == "prior":
            return level, white.slope(slope)
        return level + white.log_prob(u), white.slope(slope - u)

    def problems(self, composition: Any, name: str) -> list[tuple[str, str, str]]:
        if self.kind == "adaptive" or Fact.GENERATIVE in composition.model.facts:
            return []
        where = f"{Fact.GENERATIVE.value}; `{type(composition.model).__name__}` (model) does not provide it"
        return [(where, f'`{name}("prior")`: q is compared with draws of the prior', f'{name}("adaptive")')]


def contrasted(name: str, kind: str) -> Contrast:
    """Raises: OptionError for an unknown kind."""
    if kind not in ("adaptive", "prior"):
        asked = f"`{name}(contrast={kind!r})`"
        raise OptionError(
            explain(asked, "it is unknown", "q is compared with one of two laws", '"adaptive" or "prior"')
        )
    return Contrast(kind)


def over_plate(bound: Bound, fn: Any, *arrays: Array) -> Any:
    """fn of the (K, ...) draws of each datum; results lead with (K, *plate)."""
    return jax.vmap(fn, in_axes=1, out_axes=1)(*arrays) if bound.plate else fn(*arrays)


def squared_distances(a: Float[Array, "n D"], b: Float[Array, "m D"]) -> Float[Array, "n m"]:
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def median_width(distances: Float[Array, "n n"]) -> Float[Array, ""]:
    """h of the kernel exp(-d / 2 h): the median squared distance between different points."""
    n = distances.shape[0]
    i, j = jnp.triu_indices(n, 1)
    return jnp.maximum(jnp.median(distances[i, j]), jnp.finfo(distances.dtype).eps)


def entropy_by_neighbours(z: Float[Array, "K D"], k: int = 3) -> Float[Array, ""]:
    """H(q) from draws: psi(K) - psi(k) + log V_D + D mean log r_k, r_k the distance to the k-th nearest other draw.

    Reference:  Kozachenko and Leonenko (1987), with k neighbours.  [kozachenko1987entropy]
    """
    n, d = z.shape
    far = squared_distances(z, z) + jnp.where(jnp.eye(n, dtype=bool), jnp.inf, 0.0)
    square = -jax.lax.top_k(-far, k)[0][:, -1]
    log_ball = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1)
    digamma = jax.scipy.special.digamma
    mean_log = 0.5 * jnp.log(jnp.maximum(square, jnp.finfo(z.dtype).tiny)).mean()
    return digamma(jnp.asarray(float(n), z.dtype)) - digamma(jnp.asarray(float(k), z.dtype)) + log_ball + d * mean_log
