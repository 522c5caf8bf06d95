"""Mixtures: each row from one of K components. Fitted by `jensen.em`."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from ..errors import OptionError, check_count, explain
from ..tree import replaced
from .components import AbstractComponents, Bernoulli
from .em import HARDLY, AbstractEM, column_moments
from .gaussian_components import ConjugatePrior, Gaussians

LLOYD = 20  # k-means iterations of a start


class MixtureParams(NamedTuple):
    """weights (K,); components: their parameters."""

    weights: Array
    components: NamedTuple


class Mixture(AbstractEM):
    """Mixture: p(x) = sum_k pi_k p(x | k). `GaussianMixture`, `BernoulliMixture` and `MixtureOfPPCA` make usual ones.

    Definition: E-step: responsibilities r_nk = pi_k p(x_n | k) / p(x_n); M-step: pi_k = sum_n r_nk / n, and each
                component from the rows weighted by r_nk.
    Arguments:  n_components: K.   components: `Gaussians()`, `Bernoulli()`, `Poisson()` or `Categorical()` of
                `jensen.models.components`.   concentration: of a Dirichlet prior on the weights; 1 is flat.
    Raises:     OptionError.
    Reference:  Dempster, Laird and Rubin (1977).  [dempster1977em]
    """

    n_components: int = eqx.field(static=True)
    components: AbstractComponents
    concentration: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        check_count("n_components", self.n_components)
        if not self.concentration >= 1:
            asked = f"concentration={self.concentration!r}"
            raise OptionError(explain(asked, "it is below 1", "the posterior has no mode then", "1.0 or more"))

    @property
    def ndim(self) -> int:
        return 2

    @property
    def least_rows(self) -> int:
        return self.n_components

    @property
    def several_optima(self) -> bool:
        return self.n_components > 1 or self.components.several_optima

    @property
    def may_fall(self) -> str:
        return self.components.may_fall

    def bound_to(self, rows: np.ndarray) -> "Mixture":
        return replaced(self, components=self.components.bound_to(rows))

    def chunk(self, shape):
        return self.components.chunk(shape[1], self.n_components)

    def collapsed(self, rows, weights):
        return None

    def start(self, key, rows, random):
        shares = divided(key, rows, self.n_components, random)
        return self.m_step(
            MixtureParams(shares.mean(0), self.components.start(key, rows, shares)), (shares.sum(0), None)
        )

    def e_step(self, params, rows, weights):
        log_joint, known = self._joint(params, rows)
        log_p = logsumexp(log_joint, axis=1)
        shares = jnp.exp(log_joint - log_p[:, None]) * weights[:, None]
        return weights @ log_p, (shares.sum(0), self.components.statistics(params.components, rows, known, shares))

    def _joint(self, params, rows):
        log_p, known = self.components.evaluate(params.components, rows)
        return log_p + jnp.log(params.weights), known

    def m_step(self, params, statistics):
        counts, rest = statistics
        raw = jnp.maximum(counts + self.concentration - 1, jnp.finfo(counts.dtype).tiny)
        weights = raw / raw.sum()
        components = params.components if rest is None else self.components.m_step(params.components, rest)
        return MixtureParams(weights, components)

    def rebased(self, statistics, old, new):
        counts, rest = statistics
        return counts, self.components.rebased(rest, old.components, new.components)

    def log_prior(self, params):
        more = self.concentration - 1
        on_weights = more * jnp.log(params.weights).sum() if more else 0.0
        return on_weights + self.components.log_prior(params.components)

    def n_parameters(self, params):
        return self.n_components - 1 + self.components.n_parameters(params.components)

    def faults(self, params):
        weights = np.asarray(params.weights, np.float64)
        return self.components.faults(params.components, weights)

    def uninformed(self, params, statistics):
        counts, rest = statistics
        empty = np.flatnonzero(np.asarray(counts) < HARDLY)
        out = [(1, f"Component {k} holds no rows: nothing of it is learned. Use fewer components.") for k in empty]
        return out + self.components.uninformed(rest, "Component")

    def log_prob(self, params, rows):
        return logsumexp(self._joint(params, rows)[0], axis=1)

    def posterior(self, params, rows) -> Float[Array, "n K"]:
        """Responsibilities."""
        return jax.nn.softmax(self._joint(params, rows)[0], axis=1)

    def sample(self, params, key, n):
        which_key, row_key = jr.split(key)
        which = jr.categorical(which_key, jnp.log(params.weights), shape=(n,))
        return self.components.sample(params.components, row_key, which), which

    def imputed(self, params, rows) -> Float[Array, "n d"]:
        """E[x | what is seen of it]; what is seen stays."""
        return self.components.filled(params.components, rows, self.posterior(params, rows))


def GaussianMixture(
    n_components: int, covariance: str = "full", *, ridge: float = 1e-6, prior: ConjugatePrior | None = None
) -> Mixture:
    """Mixture of Gaussians, p(x) = sum_k pi_k N(x; mu_k, Sigma_k); NaN entries are integrated out exactly.

    Arguments:  covariance: "full", "tied", "diag", "spherical".   ridge: added to each variance, as a share of its
                column's; 0: plain maximum likelihood.   prior: `ConjugatePrior(...)` for the posterior mode.
    Example:    >>> import jensen as jn, numpy as np
                >>> x = np.random.default_rng(0).normal(size=(200, 2)) + 5 * (np.arange(200) % 2)[:, None]
                >>> jn.em(jn.models.GaussianMixture(2), x).converged
                True
    """
    concentration = 1.0 if prior is None else prior.concentration
    return Mixture(n_components, Gaussians(covariance, ridge, prior), concentration)


def BernoulliMixture(n_components: int, *, pseudo: float = 0.0) -> Mixture:
    """Mixture of independent bits (latent classes); NaN entries are left out. pseudo: see `components.Bernoulli`."""
    return Mixture(n_components, Bernoulli(pseudo))


def MixtureOfPPCA(n_components: int, n_latents: int, *, ridge: float = 1e-6) -> Mixture:
    """Mixture of probabilistic principal component analysers: Sigma_k = W_k W_k' + sigma_k^2 I, W_k of n_latents columns.

    The latent positions are integrated out, so that the M-step takes each W_k from the leading eigenvectors of the
    weighted covariance in closed form.   Cost: as full covariances, and K d^3 for eigenvectors.
    Reference:  Tipping and Bishop (1999), Mixtures of probabilistic principal component analyzers.  [tipping1999mixtures]
    """
    check_count("n_latents", n_latents)
    return Mixture(n_components, Gaussians("low-rank", ridge, None, n_latents))


def divided(key: Array, rows: Array, k: int, random: Array) -> Float[Array, "n K"]:
    """Shares of 0 and 1: rows by the nearest of k centres, from k-means++ and Lloyd's iterations, or k rows at random."""
    center, variance, filled = column_moments(rows)
    x = (filled - center) / jnp.sqrt(variance)
    n, there = len(x), ~jnp.isnan(rows).all(1)  # rows without a value belong to none
    squares = (x**2).sum(1)

    def distances(centres):
        return jnp.maximum(squares[:, None] - 2 * x @ centres.T + (centres**2).sum(1), 0.0)

    def nearest(centres):
        return jax.nn.one_hot(distances(centres).argmin(1), k, dtype=x.dtype) * there[:, None]

    def choose(carry, key):
        least, centres, i = carry
        spread = jnp.where(random | (i == 0) | ~((least * there).sum() > 0), jnp.ones(n, x.dtype), least)
        centre = x[jr.categorical(key, jnp.where(there, jnp.log(spread), -jnp.inf))]
        distance = ((x - centre) ** 2).sum(1)
        return (jnp.minimum(least, distance), centres.at[i].set(centre), i + 1), None

    carry = jnp.full(n, jnp.inf, x.dtype), jnp.zeros((k, x.shape[1]), x.dtype), 0
    (_, centres, _), _ = jax.lax.scan(choose, carry, jr.split(key, k))

    def lloyd(_, centres):
        shares = nearest(centres)
        counts = shares.sum(0)[:, None]
        return jnp.where(random | (counts == 0), centres, shares.T @ x / jnp.maximum(counts, 1))

    centres = jax.lax.fori_loop(0, LLOYD, lloyd, centres)
    return nearest(centres)
