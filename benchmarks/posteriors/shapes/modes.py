"""Several modes: far apart, narrow within wide, and those that differ by their labels only."""

import itertools

import numpy as np
from jax.scipy.special import logsumexp
from scipy.special import ndtr

from benchmarks.posteriors.densities import Density, mixture
from benchmarks.posteriors.shapes.base import Law, add, product


def separated(dim: int, n: int, gap: float, ratio: float, smallest: float, seed: int) -> Density:
    """n normals, the nearest two means `gap` apart, of sds from 1 to `ratio`, weights down to `smallest`, correlated."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((n, dim))
    apart = np.linalg.norm(means[:, None] - means, axis=-1)
    means *= gap / apart[np.triu_indices(n, 1)].min()
    weights = np.geomspace(1.0, smallest, n)
    distance = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    signs, widths = rng.uniform(-0.6, 0.6, n), rng.permutation(np.geomspace(1.0, ratio, n))
    covariances = [w**2 * c**distance for w, c in zip(widths, signs, strict=True)]
    return mixture(weights / weights.sum(), means, covariances)


for _row in (
    (2, 2, 8.0, 0.3, 0.5, 1), (2, 6, 6.0, 2.0, 0.2, 2), (3, 4, 9.0, 0.5, 0.3, 3), (5, 3, 12.0, 2.0, 0.2, 4),
    (8, 5, 15.0, 0.7, 0.4, 5), (10, 3, 10.0, 1.8, 0.3, 6), (16, 4, 20.0, 0.6, 0.4, 7), (20, 3, 9.0, 1.5, 0.3, 8),
    (32, 2, 14.0, 0.8, 0.4, 9), (50, 3, 16.0, 1.4, 0.4, 10),
):  # fmt: skip
    add("modes", f"modes_{_row[1]}_in_{_row[0]}", separated, *_row)


def _two_normals(weight: float, at: float, narrow: float, wide: float) -> Law:
    """weight N(at, narrow) + (1 - weight) N(0, wide)."""
    w, m, s = np.array([weight, 1 - weight]), np.array([at, 0.0]), np.array([narrow, wide])

    def logpdf(x):
        return logsumexp(-0.5 * ((x[..., None] - m) / s) ** 2 + np.log(w / s), axis=-1)

    mean = w @ m
    standard = np.linspace(-9, 9, 20_001)
    grid = np.unique(np.r_[wide * standard, at + narrow * standard])
    cdf = ndtr((grid[:, None] - m) / s) @ w
    return Law(logpdf, lambda u: np.interp(u, cdf, grid), float(mean), float(np.sqrt(w @ (s**2 + m**2) - mean**2)))


def spiked(dim: int, weight: float, at: float, narrow: float, wide: float = 1.0) -> Density:
    """Each coordinate in its spike or its slab, by itself."""
    return product([_two_normals(weight, at, narrow, wide)] * dim)


def needle(dim: int, weight: float, narrow: float, at: float = 0.0) -> Density:
    """All coordinates at once in the spike, of sd `narrow` at `at`, or in a standard normal."""
    covariances = [narrow**2 * np.eye(dim), np.eye(dim)]
    return mixture([weight, 1 - weight], [np.full(dim, at), np.zeros(dim)], covariances)


for _name, _make, _row in (
    ("spikes_in_2", spiked, (2, 0.5, 0.0, 0.05)), ("spikes_in_5", spiked, (5, 0.3, 0.0, 0.1)),
    ("spikes_in_10", spiked, (10, 0.5, 0.0, 0.1)), ("spikes_in_20", spiked, (20, 0.7, 0.0, 0.1, 2.0)),
    ("spikes_in_50", spiked, (50, 0.5, 0.0, 0.2)), ("spikes_aside_in_5", spiked, (5, 0.4, 1.0, 0.1)),
    ("needle_in_2", needle, (2, 0.4, 0.05)), ("needle_in_4", needle, (4, 0.5, 0.2, 0.5)),
    ("needle_in_10", needle, (10, 0.5, 0.4)), ("needle_in_25", needle, (25, 0.4, 0.7)),
):  # fmt: skip
    add("spike and slab", _name, _make, *_row)


def labelled(n: int, size: int, gap: float, narrowest: float, seed: int) -> Density:
    """n components of `size` parameters, in any order: n! equal modes, each component with an sd of its own."""
    rng = np.random.default_rng(seed)
    where = rng.standard_normal((n, size))
    apart = np.linalg.norm(where[:, None] - where, axis=-1)
    where *= gap / apart[np.triu_indices(n, 1)].min()
    sds = np.geomspace(1.0, narrowest, n)[:, None] * np.ones(size)
    orders = [list(order) for order in itertools.permutations(range(n))]
    means, scales = ([a[order].ravel() for order in orders] for a in (where, sds))
    return mixture(np.full(len(orders), 1 / len(orders)), means, [np.diag(s**2) for s in scales])


def signed(n: int, size: int, length: float) -> Density:
    """n loadings of `size` parameters, each up to its sign: 2^n equal modes."""
    factors = np.random.default_rng(n).standard_normal((n, size))
    factors *= length / np.linalg.norm(factors, axis=1, keepdims=True)
    covariance = 0.5 * np.eye(n * size) + 0.1
    means = [(np.array(s)[:, None] * factors).ravel() for s in itertools.product([-1, 1], repeat=n)]
    flips = [np.repeat(np.array(s, float), size) for s in itertools.product([-1, 1], repeat=n)]
    return mixture(np.full(len(means), 1 / len(means)), means, [np.outer(f, f) * covariance for f in flips])


for _row in (
    (2, 1, 6.0, 0.5, 1), (2, 5, 8.0, 0.7, 2), (3, 1, 5.0, 0.6, 3), (3, 2, 7.0, 0.5, 4), (3, 5, 8.0, 0.8, 5),
    (4, 1, 5.0, 0.7, 6), (4, 3, 8.0, 0.8, 7),
):  # fmt: skip
    add("labels", f"labels_{_row[0]}_of_{_row[1]}", labelled, *_row)
for _row in ((1, 20, 8.0), (2, 4, 5.0), (3, 5, 6.0)):
    add("labels", f"signs_{_row[0]}_of_{_row[1]}", signed, *_row)
