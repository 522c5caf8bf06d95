"""Are ranks uniform? Are probabilities symmetric? Tests with exact or simulated null laws, and their envelopes."""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binom

REPLICATES = 20_000
MOST_POINTS = 128


class Envelope(NamedTuple):
    """At each point z: between which values the share of ranks below z lies, at all points at once."""

    points: Float[np.ndarray, " K"]
    lower: Float[np.ndarray, " K"]
    upper: Float[np.ndarray, " K"]


def power_of_two(n: int) -> int:
    """The largest one up to n."""
    return 2 ** int(math.log2(max(n, 1)))


class _Null(NamedTuple):
    """The law of the smallest tail probability of n uniform ranks on {0, ..., states - 1}."""

    points: np.ndarray  # in units of a rank
    tail: np.ndarray  # (K, n + 1): 2 min(P(count <= c), P(count >= c)) of a Binomial(n, z_k) count
    replicates: np.ndarray  # sorted


@functools.lru_cache(maxsize=16)
def _null(n: int, states: int) -> _Null:
    """Both are powers of two apart from n, so that every point is a rank and the binomial law is exact."""
    k = min(power_of_two(n), power_of_two(states), MOST_POINTS)
    points = np.arange(1, k) * (states // k)
    z, counts = (points / states)[:, None], np.arange(n + 1)
    tail = 2 * np.minimum(binom.cdf(counts, n, z), binom.sf(counts - 1, n, z))
    drawn = np.random.default_rng(0).multinomial(n, np.full(k, 1 / k), REPLICATES).cumsum(1)[:, :-1]
    return _Null(points, tail, np.sort(tail[np.arange(k - 1), drawn].min(1)))


def uniform_p_value(ranks: Int[np.ndarray, " n"], states: int) -> float:
    """P(an empirical distribution at least as far from uniform), by its simultaneous envelope.

    Definition: gamma = 2 min_k min(P(B_k <= c_k), P(B_k >= c_k)), c_k ranks below z_k, B_k ~ Binomial(n, z_k); the
                p-value is P(gamma as small under uniformity), from 20,000 replicates, or K gamma if that is smaller.
    Arguments:  ranks: in {0, ..., states - 1}.   states: a power of two.
    Reference:  Saeilynoja, Buerkner and Vehtari (2022), section 2.  [saeilynoja2022ecdf]
    """
    null = _null(ranks.size, states)
    if not null.points.size:
        return 1.0
    below = (ranks[:, None] < null.points).sum(0)
    gamma = float(null.tail[np.arange(null.points.size), below].min())
    as_small = np.searchsorted(null.replicates, gamma * (1 + 1e-12), side="right")
    return float(min(1.0, (1 + as_small) / (1 + REPLICATES), null.points.size * gamma))


def envelope(n: int, states: int, prob: float) -> Envelope:
    """Where the empirical distribution of n uniform ranks lies at all points at once, with probability `prob`."""
    null = _null(n, states)
    gamma = float(np.quantile(null.replicates, 1 - prob)) if null.points.size else 1 - prob
    z = null.points / states
    return Envelope(z, binom.ppf(gamma / 2, n, z) / n, binom.isf(gamma / 2, n, z) / n)


def symmetric_p_value(p: Float[np.ndarray, " n"]) -> float:
    """P(p and 1 - p at least as far apart), if their law is symmetric about 1/2.

    Definition: D = sup_x |F_p(x) - F_{1-p}(x)|, the Kolmogorov-Smirnov distance. Under symmetry the signs of p - 1/2 are
                fair coins, and D is the maximum of a random walk over them, from the largest |p - 1/2| down: its law
                is exact for every n, unlike that of two independent samples. Ties make the test conservative.
    Reference:  Yao, Vehtari, Simpson and Gelman (2018), section 3.2, for the statistic.  [yao2018vsbc]
    """
    away = p - 0.5
    order = np.argsort(-np.abs(away), kind="stable")
    away = away[order]
    walk = np.abs(np.cumsum(np.sign(away)))
    ends = np.append(np.abs(np.diff(np.abs(away))) > 1e-12, True)
    return walk_p_value(int(walk[ends].max()), p.size)


@functools.lru_cache(maxsize=1024)
def walk_p_value(height: int, n: int) -> float:
    """P(max_k |S_k| >= height) of a fair walk of n steps."""
    if height <= 0:
        return 1.0
    inside = np.zeros(2 * height - 1)
    inside[height - 1] = 1.0
    escaped = 0.0
    for _ in range(n):
        escaped += 0.5 * (inside[0] + inside[-1])
        inside = 0.5 * (np.append(inside[1:], 0.0) + np.append(0.0, inside[:-1]))
    return float(min(1.0, escaped))
