"""Pareto-smoothed importance sampling."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONSTANT = 1e-3  # nats: weights that agree to a tenth of a percent


class Smoothed(NamedTuple):
    log_weights: Float[np.ndarray, " S"]  # normalised: their exponentials sum to 1
    khat: float


def fit_generalised_pareto(x: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """(k, sigma) of a generalised Pareto distribution for sorted exceedances x > 0.

    Reference:  Zhang and Stephens (2009), with the weak prior on k of Vehtari et al. (2024), appendix C.
    """
    n = x.size
    m = 30 + math.isqrt(n)
    quartile = x[int(n / 4 + 0.5) - 1]
    theta = (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quartile) + 1 / x[-1]
    k = np.log1p(-theta[:, None] * x).mean(1)
    log_likelihood = n * (np.log(-theta / k) - k - 1)
    weight = 1 / np.exp(log_likelihood - log_likelihood[:, None]).sum(1)
    weight = np.where(weight >= 10 * np.finfo(float).eps, weight, 0)
    theta_hat = float((theta * weight).sum() / weight.sum())
    k_hat = float(np.log1p(-theta_hat * x).mean())
    sigma = -k_hat / theta_hat
    return (n * k_hat + 5) / (n + 10), sigma


def psis(log_w: Float[np.ndarray, " S"]) -> Smoothed:
    """Smooths the largest weights by the quantiles of a fitted generalised Pareto tail.

    Definition: k-hat is the tail's shape. Below .5 the weights have finite variance; below .7 the estimates are usable;
                above, q misses mass of the posterior and no reweighting mends it. Infinite if there are no finite weights.
    Reference:  Vehtari, Simpson, Gelman, Yao and Gabry (2024), algorithm 1.  [vehtari2024psis]
    """
    log_w = np.asarray(log_w, np.float64)
    log_w = np.where(np.isfinite(log_w), log_w, -np.inf)
    if not np.isfinite(log_w).any():
        return Smoothed(np.full(log_w.size, -math.log(max(log_w.size, 1))), math.inf)
    log_w = log_w - log_w.max()
    s = log_w.size
    tail = math.ceil(min(0.2 * s, 3 * math.sqrt(s)))
    order = np.argsort(log_w)
    cutoff = max(log_w[order[-tail - 1]] if s > tail else -np.inf, math.log(np.finfo(float).tiny))
    index = order[log_w[order] > cutoff]
    khat = math.inf
    if np.ptp(log_w) < CONSTANT:  # q is the posterior: what is left is float32 rounding, which has no tail
        khat = -math.inf
    elif index.size <= 4 or np.ptp(log_w[index]) < 1e-12:
        khat = math.inf
    else:
        exceedance = np.exp(log_w[index]) - math.exp(cutoff)
        khat, sigma = fit_generalised_pareto(exceedance)
        if math.isfinite(khat):
            p = (np.arange(index.size) + 0.5) / index.size
            quantile = -sigma * np.log1p(-p) if abs(khat) < 1e-12 else sigma * np.expm1(-khat * np.log1p(-p)) / khat
            log_w[index] = np.minimum(np.log(quantile + math.exp(cutoff)), 0)
    total = log_w.max() + math.log(np.exp(log_w - log_w.max()).sum())
    return Smoothed(log_w - total, khat)


def importance_ess(log_weights: Float[np.ndarray, " S"]) -> float:
    """Effective sample size of normalised log-weights, 1 / sum w^2."""
    return float(1 / np.exp(2 * log_weights).sum())
