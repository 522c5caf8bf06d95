"""The score of an implicit q, estimated from its draws."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from .base import Terms
from .contrast import (
    AbstractDrawsOnly,
    entropy_by_neighbours,
    flat_draws,
    latent_layout,
    log_weights,
    median_width,
    over_plate,
    squared_distances,
    whitening,
)


class SpectralStein(AbstractDrawsOnly):
    """Spectral Stein gradient estimator (SSGE), or the Stein gradient estimator: the score grad log q(z) from K draws.

    Definition: grad ELBO = E[(grad_z log p(x, z) - grad_z log q(z)) dz/dphi], with the score replaced by
                kind="spectral": sum_j b_j psi_j(z), psi_j the eigenfunctions of an RBF kernel under q by Nystroem's method,
                b_j = -mean grad psi_j (integration by parts);
                kind="stein": -(K + eta I)^(-1) <grad, K>, the ridge solution of Stein's identity at the draws.
                In coordinates where q's draws have unit covariance; bandwidth by the median heuristic.
    Arguments:  kind.   share: of the eigenvalues' sum kept, in (0, 1].   ridge: eta, relative to the number of draws.
    Value:      mean log p(x, z) + the entropy of the draws by nearest neighbours: an ESTIMATE of the ELBO, no bound.
    Bias:       O(1): of the kernel's width, of the eigenfunctions left out and of K; it falls as K grows. In more than some
                ten dimensions the score is flattened far from the draws, and q comes out too wide or too narrow.
    Cost:       K log-density gradients, and O(K^2 D + K^3) a step and datum: use n_samples of 50 to 200.
    Reference:  Shi, Sun and Zhu (2018), equations 9-13; Li and Turner (2018), equation 8.
                [shi2018spectral, li2018gradient]
    """

    kind: str = eqx.field(static=True)
    share: float = eqx.field(static=True)
    ridge: float = eqx.field(static=True)

    def __init__(self, kind: Literal["spectral", "stein"] = "spectral", *, share: float = 0.99, ridge: float = 1e-3):
        if kind not in ("spectral", "stein"):
            asked = f"`SpectralStein({kind!r})`"
            raise OptionError(explain(asked, "it is unknown", "it names the estimate", '"spectral" or "stein"'))
        if not (0 < share <= 1 and ridge > 0):
            asked, because = f"`SpectralStein(share={share}, ridge={ridge})`", "one is a share, the other a ridge"
            raise OptionError(explain(asked, "they are out of range", because, "share=0.99, ridge=1e-3"))
        self.kind, self.share, self.ridge = kind, float(share), float(ridge)

    def terms(self, noise, bound, carry):
        layout = latent_layout(bound)
        draws = flat_draws(bound, noise, layout)
        white = whitening(draws)
        u = white.to(draws)
        score = over_plate(bound, lambda u: self.score(u), u)
        minus_entropy = -(_entropies(bound, u) + white.log_volume())
        level = jnp.broadcast_to(minus_entropy, score.shape[:-1])
        value = bound.reduce(log_weights(bound, noise, layout, level, white.slope(score)))
        return Terms(value, value)

    def score(self, u: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """grad log q at its draws, in their own coordinates."""
        n = u.shape[0]
        distances = squared_distances(u, u)
        h = median_width(distances)
        kernel = jnp.exp(-0.5 * distances / h)
        # sum_m grad_{u_m} k(u_m, u_i) = sum_m k_mi (u_i - u_m) / h
        pushed = (kernel.sum(0)[:, None] * u - kernel.T @ u) / h
        if self.kind == "stein":
            return -jnp.linalg.solve(kernel + self.ridge * n * jnp.eye(n, dtype=u.dtype), pushed)
        values, vectors = jnp.linalg.eigh(kernel)
        values, vectors = values[::-1], vectors[:, ::-1]
        before = (jnp.cumsum(values) - values) / values.sum()
        kept = (before < self.share) & (values > self.ridge * jnp.finfo(u.dtype).eps ** 0.5 * values[0])
        # psi_j at the draws: sqrt(n) v_j; b_j = -mean_i grad psi_j(u_i) = (1 / (sqrt(n) lambda_j)) sum_m v_jm pushed_m
        safe = jnp.where(kept, values, 1.0)
        b = -(vectors.T @ pushed) / (n**0.5 * safe[:, None])
        return n**0.5 * vectors @ jnp.where(kept[:, None], b, 0.0)


def _entropies(bound, u: Float[Array, "K *P D"]) -> Array:
    return jax.vmap(entropy_by_neighbours, in_axes=1)(u) if bound.plate else entropy_by_neighbours(u)
