"""Gaussian components: full, tied, diagonal, spherical and low-rank covariances, values missing or not, ML or MAP."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from ..tree import replaced
from .components import CHUNK, AbstractComponents
from .em import HARDLY, Moments, column_moments, observed

KINDS = "full", "tied", "diag", "spherical", "low-rank"
LOG_2PI = math.log(2 * math.pi)
BLOCK = 2**22  # numbers in the d x d matrices of the rows worked on at once, where values are missing


class ConjugatePrior(eqx.Module):
    """Conjugate prior of Gaussian components, for the mode of the posterior (MAP) instead of maximum likelihood.

    Definition: weights ~ Dirichlet(concentration), mu_k | Sigma_k ~ N(column means, Sigma_k / pull),
                Sigma_k ~ inverse Wishart(dof, scale . diag(column variances)); d independent ones for "diag".
    Arguments:  concentration: 1 is flat.   pull: rows' worth of the column means; 0 is flat.   dof: None: d + 2.
                scale: share of each column's variance.
    Reference:  Fraley and Raftery (2007).  [fraley2007bayesian]
    """

    concentration: float = eqx.field(static=True, default=1.0)
    pull: float = eqx.field(static=True, default=0.0)
    dof: float | None = eqx.field(static=True, default=None)
    scale: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        wrong = [n for n, ok in (("concentration", self.concentration >= 1), ("pull", self.pull >= 0),
                                 ("scale", self.scale > 0), ("dof", self.dof is None or self.dof >= 0)) if not ok]  # fmt: skip
        if wrong:
            because = "the mode must exist: concentration >= 1, pull >= 0, scale > 0, dof >= 0"
            raise OptionError(explain(f"{self}", f"out of range: {', '.join(wrong)}", because, "ConjugatePrior()"))


class GaussianParams(NamedTuple):
    """means (K, d); covariances (K, d, d), (1, d, d) if tied, (K, d) if diagonal; repaired (K,): how often a component
    had to be. center, variance (d,): of the columns of the data, fixed."""

    means: Array
    covariances: Array
    repaired: Array
    center: Array
    variance: Array


class Gaussians(AbstractComponents):
    """Gaussian components N(mu_k, Sigma_k); missing entries are integrated out exactly.

    Arguments:  covariance: "full", "tied" (one for all), "diag", "spherical", "low-rank" (W W' + sigma^2 I with `rank`
                columns in W: a mixture of probabilistic PCAs).
                ridge: added to every variance, as a share of its column's (the objective may then fall by as little).
                prior: None, or a `ConjugatePrior` (not for "low-rank").
    Cost:       K (4 n d^2 + 2 d^3) flops an iteration; with missing values and not "diag" or "spherical" K n d^3.
    """

    covariance: str = eqx.field(static=True, default="full")
    ridge: float = eqx.field(static=True, default=1e-6)
    prior: ConjugatePrior | None = eqx.field(static=True, default=None)
    rank: int = eqx.field(static=True, default=1)
    missing: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.covariance not in KINDS:
            asked = f"covariance={self.covariance!r}"
            raise OptionError(explain(asked, "there is no such kind", "it says what is free", f"one of {KINDS}"))
        if not self.ridge >= 0 or self.rank < 1:
            asked = f"ridge={self.ridge!r}, rank={self.rank!r}"
            because = "variances are positive, and a rank is a count"
            raise OptionError(explain(asked, "out of range", because, "ridge=1e-6, rank=1 or more"))
        if self.prior is not None and self.covariance == "low-rank":
            because = "there is no conjugate prior of W W' + sigma^2 I"
            raise OptionError(explain('prior with "low-rank"', "the two do not meet", because, "prior=None"))

    @property
    def may_fall(self) -> str:
        return "the ridge is added to variances after the M-step" if self.ridge else ""

    @property
    def several_optima(self) -> bool:
        """Correlations of columns that are rarely seen together may have two."""
        return self.missing and self._dense

    @property
    def _dense(self) -> bool:
        return self.covariance in ("full", "tied", "low-rank")

    def bound_to(self, rows: np.ndarray) -> "Gaussians":
        d = rows.shape[1]
        if self.covariance == "low-rank" and self.rank >= d:
            because = "W W' + sigma^2 I with as many columns as d is a full covariance"
            asked = f'covariance="low-rank", rank={self.rank} on {d} columns'
            raise OptionError(explain(asked, "the rank is not below d", because, 'covariance="full", or a lower rank'))
        return replaced(self, missing=bool(np.isnan(rows).any()))

    def chunk(self, d: int, n_components: int) -> int:
        per_row = n_components * d * d
        return max(1, min(CHUNK, BLOCK // per_row)) if self.missing and self._dense else CHUNK

    def start(self, key, rows, shares):
        center, variance, filled = column_moments(rows)
        means = (shares.T @ filled) / jnp.maximum(shares.sum(0), 1e-9)[:, None]
        covariances = jnp.broadcast_to(variance, means.shape)
        params = GaussianParams(means, covariances, jnp.zeros(len(means), rows.dtype), center, variance)
        if self._dense:
            full = jnp.diag(variance)[None] * jnp.ones((1 if self.covariance == "tied" else len(means), 1, 1))
            params = params._replace(covariances=full.astype(rows.dtype))
        elif self.covariance == "spherical":
            params = params._replace(covariances=jnp.full_like(means, variance.mean()))
        if self.missing and self._dense:  # means in place of what is missing would have no correlation: a saddle
            drawn = filled + jr.normal(key, filled.shape, filled.dtype) * jnp.sqrt(variance)
            filled = jnp.where(jnp.isnan(rows), drawn, filled)
        second = _scatter(filled, means, shares, self._dense)
        first = jnp.einsum("nk,nd->kd", shares, filled) - shares.sum(0)[:, None] * means
        out = self.m_step(params, Moments(shares.sum(0), first, second))
        return out._replace(repaired=jnp.zeros_like(out.repaired))

    # ---- E-step -----------------------------------------------------------------------------------------------
    def evaluate(self, params, rows):
        x, mask = observed(rows, self.missing)
        if not self._dense:
            seen = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
            diff = (x[:, None] - params.means) * seen[:, None]
            quad = (diff**2 / params.covariances).sum(-1)
            log_det = seen @ jnp.log(params.covariances).T
            return -0.5 * (quad + log_det + seen.sum(1)[:, None] * LOG_2PI), (diff, seen)
        covariances = jnp.broadcast_to(params.covariances, (len(params.means), *params.covariances.shape[1:]))
        if mask is None:
            log_p, y = jax.lax.map(lambda p: _whitened(x, *p), (params.means, *_factors(covariances)))
            return log_p.T, y
        log_p, gain, inverse = jax.lax.map(lambda p: _marginal(x, mask, *p), (params.means, covariances))
        return log_p.T, (gain, inverse)

    def statistics(self, params, rows, known, shares):
        weight = shares.sum(0)
        if not self._dense:  # E[x - mu]: 0 where not seen, with the variance left
            diff, seen = known
            second = jnp.einsum("nk,nkd->kd", shares, diff**2) + params.covariances * (shares.T @ (1 - seen))
            there = shares.T @ seen if self.missing else None
            return Moments(weight, jnp.einsum("nk,nkd->kd", shares, diff), second, there)
        covariances = jnp.broadcast_to(params.covariances, (len(params.means), *params.covariances.shape[1:]))
        if not self.missing:  # sums of whitened rows, then L . L': accurate however far apart the components are
            cholesky, _ = _factors(covariances)
            first, second = jax.lax.map(lambda a: _sums(*a), (known, shares.T))
            return Moments(weight, jnp.einsum("kij,kj->ki", cholesky, first), cholesky @ second @ _t(cholesky))
        gain, inverse = known
        expected = jnp.einsum("kij,knj->kni", covariances, gain)  # E[x | observed] - mu
        first, second = jax.lax.map(lambda a: _sums(*a), (expected, shares.T))
        left = jnp.einsum("nk,knij->kij", shares, inverse)  # Cov[x | observed] = Sigma - Sigma M Sigma
        second = second + weight[:, None, None] * covariances - covariances @ left @ covariances
        there = (~jnp.isnan(rows)).astype(rows.dtype)
        return Moments(weight, first, second, jax.lax.map(lambda share: _sums(there, share)[1], shares.T))

    # ---- M-step -----------------------------------------------------------------------------------------------
    def m_step(self, params, statistics):
        weight = statistics.weight
        eps = jnp.finfo(weight.dtype).eps
        dead = weight <= 10 * eps * jnp.maximum(weight.sum(), 1)
        pull, more, inverse_scale = self._prior_terms(params)
        anchored = statistics.first + pull * (params.center - params.means)
        step = jnp.where(dead[:, None], 0.0, anchored / jnp.maximum(weight + pull, eps)[:, None])
        means = params.means + step
        away = means - params.center
        second = statistics.moved(step).second + pull * (_outer(away) if self._dense else away**2)
        covariances = self._shaped(second, weight, more, inverse_scale)
        one = self.covariance in ("spherical", "low-rank")  # one noise variance: a ridge a column would not leave it so
        spread = jnp.full_like(params.variance, params.variance.mean()) if one else params.variance
        covariances = covariances + self.ridge * (jnp.diag(spread) if self._dense else spread)
        covariances, repaired = self._repaired(covariances, weight, dead, spread)
        return params._replace(means=means, covariances=covariances, repaired=params.repaired + repaired)

    def _prior_terms(self, params) -> tuple[float, float, Array]:
        """(pull, what the exponent -1/2 of |Sigma| gains, inverse scale of the inverse Wishart)."""
        if self.prior is None:
            return 0.0, 0.0, jnp.zeros_like(params.variance)
        d, p = params.means.shape[1], self._block(params)
        dof = d + 2.0 if self.prior.dof is None else self.prior.dof
        return self.prior.pull, dof + p + 1, self.prior.scale * params.variance

    def _block(self, params) -> int:
        """Size of the matrix one inverse Wishart is over."""
        return params.means.shape[1] if self._dense else 1

    def _shaped(self, second, weight, more, inverse_scale):
        """Mode of the covariances: (second + inverse scale) / (weight + exponents), in the free form."""
        eps = jnp.finfo(weight.dtype).eps
        own = 1.0 if self.prior is not None and self.prior.pull > 0 else 0.0  # |Sigma|^(-1/2) of the mean's prior
        if self.covariance == "tied":
            total = second.sum(0, keepdims=True) + jnp.diag(inverse_scale)
            return total / (weight.sum() + own * len(weight) + more)
        count = jnp.maximum(weight + own + more, eps)[:, None]
        if self.covariance == "diag":
            return (second + inverse_scale) / count
        d = second.shape[1]
        if self.covariance == "spherical":
            pooled = second.sum(1) + (inverse_scale.mean() if self.prior is not None else 0.0)
            return jnp.broadcast_to((pooled / (d * (count[:, 0] - more) + more))[:, None], second.shape)
        full = (second + jnp.diag(inverse_scale)) / count[..., None]
        return full if self.covariance == "full" else jax.lax.map(lambda s: low_rank(s, self.rank), full)

    def _repaired(self, covariances, weight, dead, variance):
        """Components without rows get the pooled covariance, singular ones a ridge. Returns how often each was repaired."""
        eps = jnp.finfo(variance.dtype).eps
        ridge = jnp.maximum(1e-6, 100 * eps)
        if not self._dense:
            low = covariances <= 10 * eps * variance
            fixed = jnp.where(low, jnp.maximum(covariances, ridge * variance), covariances)
            fixed = jnp.where(dead[:, None], variance, fixed)
            return fixed, (low.any(1) | dead).astype(variance.dtype)
        covariances = (covariances + _t(covariances)) / 2
        lost = dead if self.covariance != "tied" else jnp.zeros(1, bool)
        covariances = jnp.where(lost[:, None, None], jnp.diag(variance), covariances)
        cholesky = jnp.linalg.cholesky(covariances)
        pivots = jnp.diagonal(cholesky, axis1=1, axis2=2) ** 2
        bad = ~(pivots > 10 * eps * variance).all(1)
        fixed = jnp.where(bad[:, None, None], covariances + ridge * jnp.diag(variance), covariances)
        return fixed, jnp.broadcast_to((bad | lost).astype(variance.dtype), weight.shape)

    def rebased(self, statistics, old, new):
        return statistics.moved(new.means - old.means)

    def log_prior(self, params):
        if self.prior is None:
            return jnp.zeros((), params.means.dtype)
        pull, more, inverse_scale = self._prior_terms(params)
        away = params.means - params.center
        if self._dense:
            cholesky, inverse = _factors(params.covariances)
            log_det = 2 * jnp.log(jnp.diagonal(cholesky, axis1=1, axis2=2)).sum(1)
            trace = (inverse**2 * inverse_scale).sum((1, 2))
            pulled = ((inverse @ away[..., None])[..., 0] ** 2).sum(-1)
        else:
            log_det = jnp.log(params.covariances).sum(1)
            trace = (inverse_scale / params.covariances).sum(1)
            pulled = (away**2 / params.covariances).sum(1)
        prior = -0.5 * (more * log_det + trace).sum()
        if self.covariance == "spherical":  # one variance a component
            prior = -0.5 * (more * log_det + trace).sum() / params.means.shape[1]
        if pull > 0:
            prior = prior - 0.5 * (pull * pulled + jnp.broadcast_to(log_det, pulled.shape)).sum()
        return prior

    # ---- what came of it ----------------------------------------------------------------------------------------
    def n_parameters(self, params):
        k, d = params.means.shape
        q = self.rank
        each = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k,
                "low-rank": k * (d * q + 1 - q * (q - 1) // 2)}  # fmt: skip
        return k * d + each[self.covariance]

    def faults(self, params, weights):
        means, spread = np.asarray(params.means, np.float64), np.asarray(params.variance, np.float64)
        full, out = dense(np.asarray(params.covariances, np.float64), len(means)), []
        scaled = lambda a: np.linalg.eigvalsh(a / np.sqrt(spread[:, None] * spread)).min()
        center = weights @ means
        away = means - center
        together = np.einsum("k,kij->ij", weights, full + away[:, :, None] * away[:, None, :])
        floor = 20 * max(self.ridge, 1e-6, 100 * float(np.finfo(np.asarray(params.variance).dtype).eps))
        if scaled(together) < floor:
            out.append(
                (1, "Some columns are (nearly) functions of the others: drop them, or use a low-rank covariance.")
            )
        else:
            for k in np.flatnonzero([scaled(a) < floor for a in full]):
                why = (
                    f"Component {k} has collapsed onto a few rows or a flat (share {weights[k]:.2g}): its likelihood is"
                )
                out.append((2, f"{why} without bound. Use fewer components, a prior, or a simpler covariance."))
        for k in np.flatnonzero(np.asarray(params.repaired)):
            times = int(params.repaired[k])
            out.append((1, f"Component {k} lost its rows or became singular, and was repaired {times} times."))
        return out

    def seen(self, statistics):
        there = statistics.seen
        if there is None:
            return jnp.broadcast_to(statistics.weight[:, None], statistics.first.shape)
        return there if there.ndim == 2 else jnp.diagonal(there, axis1=1, axis2=2)

    @property
    def has_prior(self) -> bool:
        return self.prior is not None

    def uninformed(self, statistics, what):
        out, there = super().uninformed(statistics, what), statistics.seen
        if there is None or there.ndim == 2 or self.covariance == "low-rank":
            return out
        tied = self.covariance == "tied"
        pairs = np.asarray(there, np.float64).sum(0, keepdims=True) if tied else np.asarray(there, np.float64)
        for k, together in enumerate(pairs):
            alone = np.diagonal(together)
            lost = (together < HARDLY) & (alone[:, None] >= HARDLY) & (alone >= HARDLY)
            if lost.any():
                i, j = np.argwhere(lost)[0]
                more = f" (and {int(lost.sum()) // 2 - 1} other pairs)" if lost.sum() > 2 else ""
                who = "No row" if tied else f"No row of {what.lower()} {k}"
                why = f"{who} has values in both columns {i} and {j}{more}: their covariance is not learned from data"
                out.append((int(not self.has_prior), f"{why}."))
        return out

    def filled(self, params, rows, shares):
        mean = jnp.einsum("nk,knd->nd", shares, self.imputed(params, rows))
        return jnp.where(jnp.isnan(rows), mean, rows)

    def sample(self, params, key, which):
        noise = jr.normal(key, (len(which), params.means.shape[1]), params.means.dtype)
        if not self._dense:
            return params.means[which] + jnp.sqrt(params.covariances)[which] * noise
        cholesky = jnp.linalg.cholesky(jnp.broadcast_to(params.covariances, (len(params.means), *noise.shape[1:] * 2)))
        return params.means[which] + jnp.einsum("nij,nj->ni", cholesky[which], noise)

    def mean(self, params):
        return params.means

    def imputed(self, params, rows) -> Float[Array, "K n d"]:
        """E[x | what is seen of it, component]: what is seen stays."""
        _, known = replaced(self, missing=True).evaluate(params, rows)
        if not self._dense:
            diff, _ = known
            filled = params.means[:, None] + jnp.swapaxes(diff, 0, 1)
        else:
            covariances = jnp.broadcast_to(params.covariances, (len(params.means), *params.covariances.shape[1:]))
            filled = params.means[:, None] + jnp.einsum("kij,knj->kni", covariances, known[0])
        return jnp.where(jnp.isnan(rows), filled, rows)


def dense(covariances: np.ndarray, n_components: int) -> np.ndarray:
    """Covariances of any kind, as (K, d, d)."""
    if covariances.ndim == 3:
        return np.broadcast_to(covariances, (n_components, *covariances.shape[1:]))
    return np.stack([np.diag(row) for row in covariances])


def low_rank(s: Float[Array, "d d"], rank: int) -> Float[Array, "d d"]:
    """Maximum-likelihood W W' + sigma^2 I of the scatter s: Tipping and Bishop (1999), eqs. 7 and 8."""
    values, vectors = jnp.linalg.eigh(s)
    noise = values[:-rank].mean()
    kept = jnp.maximum(values[-rank:] - noise, 0.0)
    return (vectors[:, -rank:] * kept) @ vectors[:, -rank:].T + noise * jnp.eye(len(s), dtype=s.dtype)


def _t(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _outer(a: Array) -> Array:
    return a[..., :, None] * a[..., None, :]


def _factors(covariances: Array) -> tuple[Array, Array]:
    """(L, L^-1) of each."""
    cholesky = jnp.linalg.cholesky(covariances)
    eye = jnp.broadcast_to(jnp.eye(cholesky.shape[-1], dtype=cholesky.dtype), cholesky.shape)
    return cholesky, solve_triangular(cholesky, eye, lower=True)


def _whitened(x, mean, cholesky, inverse) -> tuple[Array, Array]:
    """(log N(x; mean, L L'), y = L^-1 (x - mean)) of each row."""
    y = (x - mean) @ inverse.T
    log_det = 2 * jnp.log(jnp.diagonal(cholesky)).sum()
    return -0.5 * ((y**2).sum(1) + log_det + x.shape[1] * LOG_2PI), y


def _marginal(x, mask, mean, covariance) -> tuple[Array, Array, Array]:
    """Of the observed entries o: (log N(x_o; mu_o, Sigma_oo), M (x - mu), M), M = Sigma_oo^-1 with 0 elsewhere.

    Sigma_oo is bordered by the identity, so that every row has a matrix of the same size.
    """
    seen = mask.astype(x.dtype)
    both = seen[:, :, None] * seen[:, None, :]
    eye = jnp.eye(x.shape[1], dtype=x.dtype)
    cholesky, inverse = _factors(covariance * both + eye * (1 - both))
    precision = (_t(inverse) @ inverse) * both
    diff = (x - mean) * seen
    gain = jnp.einsum("nij,nj->ni", precision, diff)
    log_det = 2 * jnp.log(jnp.diagonal(cholesky, axis1=1, axis2=2)).sum(1)
    return -0.5 * ((diff * gain).sum(1) + log_det + seen.sum(1) * LOG_2PI), gain, precision


def _sums(y: Array, share: Array) -> tuple[Array, Array]:
    """(sum r y, sum r y y'): the second as one product of a matrix with its transpose."""
    root = y * jnp.sqrt(share)[:, None]
    return share @ y, root.T @ root


def _scatter(x: Array, means: Array, shares: Array, dense: bool) -> Array:
    """Second moments of the rows about each mean."""
    one = lambda p: _sums(x - p[0], p[1])[1] if dense else p[1] @ (x - p[0]) ** 2
    return jax.lax.map(one, (means, shares.T))
