"""A q beside its own weighted draws: how far they move means and sds, and its ELBO by them."""

import math
from typing import Any

import numpy as np

from ..algorithms.gaussian import Gaussian, Mixture
from ..algorithms.heavy_tails import HeavyTails
from ..algorithms.importance import Weighted
from .marginals import NORMAL_QUARTILE, tail_error

ELBO_ERROR, ELBO_SHARE = 100.0, 0.1  # nats, or of the value: errors of a number that says something


def difference(q: Any, w: Weighted, names: list[str]) -> tuple[float, float, str]:
    """Largest move of a mean (in sd) and of an sd (log ratio) from q to its weighted draws, and the coordinate.

    Definition: for Gaussians against the same draws weighed by q, of which the moments are known: what both err alike cancels.
    """
    if not np.isfinite(w.log_p).any():
        return math.inf, math.inf, "all"
    if isinstance(q, HeavyTails):  # whose moments may not exist
        u = q.sample(np.random.default_rng(0), 4096)
        (mean, sd), (new, new_sd) = _by_quartiles(u, np.full(len(u), 1 / len(u))), _by_quartiles(w.u, w.weights)
    else:
        (mean, sd), (new, new_sd) = moments(q), (w.mean, w.sd)
        if isinstance(q, Gaussian | Mixture):
            by_q = np.exp(q.log_prob(w.u) - w.log_q)
            seen = by_q @ w.u / by_q.sum()
            seen_sd = np.sqrt(by_q @ (w.u - seen) ** 2 / by_q.sum())
            new, new_sd = new - seen + mean, new_sd / np.maximum(seen_sd, 1e-300) * sd
    shift = np.abs(new - mean) / np.maximum(np.minimum(sd, new_sd), 1e-300)
    change = np.abs(np.log(np.maximum(new_sd, 1e-300) / sd))
    worst = int(np.argmax(np.maximum(shift, change)))
    return float(shift.max()), float(change.max()), names[worst] if len(names) == len(shift) else f"coordinate {worst}"


def _by_quartiles(u: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median, and the distance of the quartiles in that of a standard normal's, of each coordinate."""
    order = np.argsort(u, axis=0)
    mass = np.cumsum(w[order], axis=0)
    low, middle, high = (
        np.take_along_axis(u, np.take_along_axis(order, (mass >= p * mass[-1]).argmax(0)[None], 0), 0)[0]
        for p in (0.25, 0.5, 0.75)
    )
    return middle, (high - low) / (2 * NORMAL_QUARTILE)


def moments(q: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each coordinate of a Gaussian, of a mixture of them, or (by draws) of anything else."""
    if hasattr(q, "components") and all(hasattr(c, "sd") for c in q.components):
        pairs = list(zip(q.weights, q.components, strict=True))
        mean = np.sum([w * c.mean for w, c in pairs], 0)
        return mean, np.sqrt(np.sum([w * (c.sd**2 + (c.mean - mean) ** 2) for w, c in pairs], 0))
    if hasattr(q, "sd"):
        return q.mean, q.sd
    u = q.sample(np.random.default_rng(0), 4096)
    return u.mean(0), u.std(0)


def elbo_of(q: Any, w: Weighted) -> tuple[float, float]:
    """E_q[log p - log q] by weights q / proposal, which are bounded: the proposal's own heavy tails would decide the mean, and
    for a density that falls off fast leave it none. From the draws where the density is defined; NaN where a few of them
    decide it even so. Of a q with tails of its own, that of the Gaussian it is made of."""
    log_q = np.asarray((q.base if isinstance(q, HeavyTails) else q).log_prob(w.u))
    ratio = np.exp(log_q - w.log_q)
    known = np.isfinite(w.log_p) & np.isfinite(log_q) & (ratio > 0)
    if not known.any():
        return -math.inf, math.inf
    ratio, term = ratio[known] / ratio[known].mean(), (w.log_p - log_q)[known]
    value = float((ratio * term).mean())
    error = float(tail_error((ratio * (term - value))[:, None], np.full(1, float(known.sum())))[0][0])
    return (value, error) if error < max(ELBO_ERROR, ELBO_SHARE * abs(value)) else (math.nan, math.inf)
