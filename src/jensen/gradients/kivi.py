"""The density ratio of an implicit q to a known law, by kernel regression in closed form."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from ..tree import Layout, replaced
from .base import Terms
from .contrast import (
    AbstractDrawsOnly,
    contrasted,
    flat_draws,
    latent_layout,
    log_weights,
    median_width,
    over_plate,
    squared_distances,
    whitening,
)


class KernelRatio(AbstractDrawsOnly):
    """Kernel implicit variational inference (KIVI): log q by a kernel estimate of a density ratio.

    Definition: rho = r / q, r the contrast, minimises 1/2 mean_q rho^2 - mean_r rho + ridge/2 |rho|^2 over the space of an
                RBF kernel (unconstrained least squares; the ratio is that of r to q so that it is accurate where q has its
                draws):
                rho(z) = sum_i a_i k(z_i, z) + (1 / ridge K) sum_j k(y_j, z),
                a = -(K_qq + ridge K I)^(-1) K_qy 1 / (ridge K),  z_i ~ q, y_j ~ r;   log q = log r - log rho.
                In coordinates where q's draws have unit covariance; bandwidth by the median heuristic.
    Arguments:  contrast: "adaptive", the Gaussian with the moments of q's draws, or "prior", the model's own prior.
                ridge: > 0.   floor: below which rho is not believed, > 0.
    Value:      the log-weights with this log q: an ESTIMATE of the ELBO, no bound.
    Bias:       O(1): of ridge, kernel and K; the ratio is smoothed, so that q is drawn towards the contrast. Falls as K
                grows; in more than some ten dimensions it does not get small.
    Cost:       K log-density gradients, and O(K^2 D + K^3) a step and datum: use n_samples of 50 to 200.
    Reference:  Shi, Sun and Zhu (2018), equations 9-12.  [shi2018kernel]
    """

    kind: Any = eqx.field(static=True)
    ridge: float = eqx.field(static=True)
    floor: float = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(
        self,
        contrast: Literal["adaptive", "prior"] = "adaptive",
        *,
        ridge: float = 1e-2,
        floor: float = 1e-3,
        size: int = 0,
    ):
        if not (ridge > 0 and floor > 0):
            asked, because = (
                f"`KernelRatio(ridge={ridge}, floor={floor})`",
                "the regression needs one, the log the other",
            )
            raise OptionError(explain(asked, "one is not positive", because, "ridge=1e-2, floor=1e-3"))
        self.kind = contrasted("KernelRatio", contrast).kind
        self.ridge, self.floor, self.size = float(ridge), float(floor), size

    def bind(self, latents, rows, key):
        return replaced(self, size=Layout(latents).size)

    def problems(self, composition):
        return contrasted("KernelRatio", self.kind).problems(composition, "KernelRatio")

    def noise(self, key, plan, q, shape):
        law = contrasted("KernelRatio", self.kind).law(self.size)
        return plan.draw(key, (q.noise_law(), law), shape)

    def terms(self, noise, bound, carry):
        layout, beside = latent_layout(bound), contrasted("KernelRatio", self.kind)
        draws = flat_draws(bound, noise[0], layout)
        white = whitening(draws)
        u, y = white.to(draws), beside.draws(bound, noise[1], layout, white)
        log_ratio, slope = over_plate(bound, self.log_ratio, u, y)
        level, slope = beside.add(white, u, log_ratio, slope)
        value = bound.reduce(log_weights(bound, noise[0], layout, level, slope, beside.kind == "prior"))
        return Terms(value, value)

    def log_ratio(self, u: Float[Array, "K D"], y: Float[Array, "K D"]) -> tuple[Array, Array]:
        """log q / r at q's draws u, (K,), and its gradient there, (K, D); y: draws of r."""
        n = u.shape[0]
        distances = squared_distances(u, u)
        h = median_width(distances)
        kernel = lambda d: jnp.exp(-0.5 * d / h)
        k_q, k_y = kernel(distances), kernel(squared_distances(u, y))
        target = k_y.sum(1) / (self.ridge * n)
        a = -jnp.linalg.solve(k_q + self.ridge * n * jnp.eye(n, dtype=u.dtype), target)

        def rho(z: Array) -> Array:
            own, other = kernel(((z - u) ** 2).sum(-1)), kernel(((z - y) ** 2).sum(-1))
            return -jnp.log(jnp.maximum(a @ own + other.sum() / (self.ridge * n), self.floor))

        return jax.vmap(jax.value_and_grad(rho))(u)
