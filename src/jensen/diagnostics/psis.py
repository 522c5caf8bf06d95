"""Pareto-smoothed importance sampling, of one set of weights or of many at once."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

CONSTANT = 1e-3  # nats: weights that agree to a tenth of a percent
GRID_SCALARS = 2**19  # of the grid x tail x rows array of the Pareto fit: it stays in the cache


class Smoothed(NamedTuple):
    log_weights: Float[np.ndarray, " S"]  # normalised: their exponentials sum to 1
    khat: float


def fit_generalised_pareto(
    x: Float[np.ndarray, "R M"], n: Int[np.ndarray, " R"]
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """(k, sigma) of a generalised Pareto distribution for each row of exceedances.

    Arguments:  x: sorted upwards; the last n of each row are the exceedances, the others are 0.
    Reference:  Zhang and Stephens (2009), with the weak prior on k of Vehtari et al. (2024), appendix C.
    """
    m = 30 + np.floor(np.sqrt(n)).astype(int)
    step = max(1, GRID_SCALARS // (int(m.max()) * x.shape[1]))
    parts = [_fit(x[i : i + step], n[i : i + step], m[i : i + step]) for i in range(0, len(x), step)]
    k, sigma = (np.concatenate(a) for a in zip(*parts, strict=True))
    return k, sigma


def _fit(x: np.ndarray, n: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    j = np.arange(1, m.max() + 1)
    used = j <= m[:, None]
    j = np.where(used, j, 1)
    quartile = np.take_along_axis(x, (x.shape[1] - n + (n / 4 + 0.5).astype(int) - 1)[:, None], 1)
    theta = (1 - np.sqrt(m[:, None] / (j - 0.5))) / (3 * quartile) + 1 / x[:, -1:]
    k = np.log1p(-theta[:, :, None] * x[:, None, :]).sum(2) / n[:, None]  # log1p(0) = 0: the padding adds nothing
    log_likelihood = np.where(used, n[:, None] * (np.log(-theta / k) - k - 1), -np.inf)
    weight = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    weight = weight / weight.sum(1, keepdims=True)
    weight = np.where(weight >= 10 * np.finfo(float).eps, weight, 0)
    theta_hat = (theta * weight).sum(1) / weight.sum(1)
    k_hat = np.log1p(-theta_hat[:, None] * x).sum(1) / n
    return (n * k_hat + 5) / (n + 10), -k_hat / theta_hat


def tail_size(s: int, reff: float = 1.0) -> int:
    """How many of s weights the Pareto distribution is fitted to."""
    return min(math.ceil(min(0.2 * s, 3 * math.sqrt(s / reff))), s - 1)


def smooth(log_w: Float[np.ndarray, "R S"], reff: float = 1.0) -> tuple[np.ndarray, Float[np.ndarray, " R"]]:
    """(smoothed log-weights on the scale of the given ones, k-hat) for each row of log-weights of S draws.

    Arguments:  reff: effective draws a draw, below 1 for correlated ones: the tail is then longer.
    Cost:       about 0.1 ms a row of 4096; memory of a few copies of `log_w`: give many rows in blocks.
    Reference:  Vehtari, Simpson, Gelman, Yao and Gabry (2024), algorithm 1.  [vehtari2024psis]
    """
    log_w = np.where(np.isfinite(log_w), log_w, -np.inf).astype(np.float64)
    s = log_w.shape[1]
    top = log_w.max(1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    log_w -= top
    constant = log_w.min(1) > -CONSTANT  # q is the posterior: what is left is float32 rounding, which has no tail
    khat = np.where(constant & np.isfinite(log_w[:, 0]), -math.inf, math.inf)
    tail = tail_size(s, reff)
    if tail < 1:
        return log_w + top, khat
    index = np.argpartition(log_w, s - tail - 1, axis=1)[:, s - tail - 1 :]
    order = np.argsort(np.take_along_axis(log_w, index, 1), axis=1)
    index = np.take_along_axis(index, order, 1)
    values = np.take_along_axis(log_w, index, 1)
    cutoff = np.maximum(values[:, :1], math.log(np.finfo(float).tiny))
    index, values = index[:, 1:], values[:, 1:]
    inside = values > cutoff
    n = inside.sum(1)
    least = np.take_along_axis(values, np.minimum(tail - n, tail - 1)[:, None], 1)[:, 0]
    fitted = np.flatnonzero(~constant & (n > 4))
    fitted = fitted[values[fitted, -1] - least[fitted] >= 1e-12]
    if fitted.size:
        values[fitted], khat[fitted] = _tail(values[fitted], cutoff[fitted], inside[fitted], n[fitted])
        np.put_along_axis(log_w, index, values, 1)
    return log_w + top, khat


def _tail(values: np.ndarray, cutoff: np.ndarray, inside: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest log-weights replaced by quantiles of their fitted distribution, none above the largest; k-hat."""
    floor = np.exp(cutoff)
    exceedance = np.where(inside, np.exp(values) - floor, 0.0)
    with np.errstate(all="ignore"):  # a fit that fails is not finite, and then nothing is replaced
        k, sigma = fit_generalised_pareto(exceedance, n)
        p = (np.arange(values.shape[1]) - (values.shape[1] - n)[:, None] + 0.5) / n[:, None]
        log_survival = np.log1p(-np.where(inside, p, 0.5))
        small = np.abs(k)[:, None] < 1e-12
        shape = np.where(small, 1.0, k[:, None])
        quantile = np.where(small, -log_survival, np.expm1(-shape * log_survival) / shape) * sigma[:, None]
        new = np.minimum(np.log(quantile + floor), 0.0)
    return np.where(inside & np.isfinite(k)[:, None], new, values), k


def psis(log_w: Float[np.ndarray, " S"], reff: float = 1.0) -> Smoothed:
    """Smooths the largest weights by the quantiles of a fitted generalised Pareto tail.

    Definition: k-hat is the tail's shape. Below .5 the weights have finite variance; below .7 the estimates are usable;
                above, q misses mass of the posterior and no reweighting mends it. Infinite if there are no finite weights.
    Reference:  Vehtari, Simpson, Gelman, Yao and Gabry (2024), algorithm 1.  [vehtari2024psis]
    """
    log_w = np.asarray(log_w, np.float64)
    if not np.isfinite(log_w).any():
        return Smoothed(np.full(log_w.size, -math.log(max(log_w.size, 1))), math.inf)
    smoothed, khat = smooth(log_w[None], reff)
    return Smoothed(smoothed[0] - log_sum(smoothed)[0], float(khat[0]))


def log_sum(log_w: Float[np.ndarray, "... S"]) -> np.ndarray:
    """log of the sum over the last axis of exp(log_w); -inf where all are."""
    top = log_w.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_w - top).sum(-1)) + top[..., 0]


def importance_ess(log_weights: Float[np.ndarray, " S"]) -> float:
    """Effective sample size of normalised log-weights, 1 / sum w^2."""
    return float(1 / np.exp(2 * log_weights).sum())
