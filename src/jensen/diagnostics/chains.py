"""Convergence of chains: rank-normalised split R-hat and effective sample size."""

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri


def _split(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, "2C M D"]:
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, x.shape[1] - half :]])


def normal_scores(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, "C N D"]:
    """Normal quantiles of the ranks among all draws of a coordinate; equal draws in the order they are in."""
    c, n, d = x.shape
    scores = ndtri((np.arange(1, c * n + 1) - 0.375) / (c * n + 0.25))
    out = np.empty((d, c * n))
    for column, place in zip(np.ascontiguousarray(x.reshape(c * n, d).T), out, strict=True):
        place[np.argsort(column)] = scores
    return out.T.reshape(c, n, d)


def _plain_rhat(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, " D"]:
    n = x.shape[1]
    within = x.var(1, ddof=1).mean(0)
    between = x.mean(1).var(0, ddof=1)
    return np.sqrt((n - 1) / n + between / np.maximum(within, 1e-300))


def split_rhat(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, " D"]:
    """Split R-hat without ranks."""
    return _plain_rhat(_split(x))


def rhat(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, " D"]:
    """Rank-normalised split R-hat, the larger of bulk and folded, of C chains of N draws of D coordinates.

    Reference:  Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021).  [vehtari2021rhat]
    """
    return rhat_of_scores(x, normal_scores(x))


def rhat_of_scores(x: Float[np.ndarray, "C N D"], scores: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, " D"]:
    """The same, where the normal scores of x are known."""
    folded = normal_scores(np.abs(x - np.median(x, (0, 1))))
    return np.maximum(_plain_rhat(_split(scores)), _plain_rhat(_split(folded)))


def ess(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, " D"]:
    """Effective sample size of the mean over all chains: Geyer's initial monotone sequence on split chains.

    Reference:  Vehtari et al. (2021), section 3.2.
    """
    x = _split(x)
    c, n, d = x.shape
    within = x.var(1, ddof=1).mean(0)
    total = (n - 1) / n * within + x.mean(1).var(0, ddof=1)
    size = 1 << (2 * n - 1).bit_length()
    f = np.fft.rfft(x - x.mean(1, keepdims=True), size, axis=1)
    covariance = np.fft.irfft(np.abs(f) ** 2, size, axis=1)[:, :n].mean(0) / n  # (N, D)
    rho = 1 - (within - covariance * n / (n - 1)) / np.maximum(total, 1e-300)
    rho[0] = 1
    pairs = rho[: n // 2 * 2].reshape(-1, 2, d).sum(1)
    alive = np.cumprod(pairs > 0, axis=0).astype(bool)
    pairs = np.minimum.accumulate(np.where(alive, pairs, 0), axis=0)
    tau = np.maximum(-1 + 2 * pairs.sum(0), 1 / np.log10(c * n))
    return np.where(total > 0, c * n / tau, c * n)


def ess_of_spread(x: Float[np.ndarray, "C N D"]) -> Float[np.ndarray, " D"]:
    """Effective sample size for a standard deviation: of |x - median|."""
    return ess(np.abs(x - np.median(x, (0, 1))))
