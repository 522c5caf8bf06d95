"""How far two sets of draws are from each other, against what chance alone would give."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from ..errors import DataError, explain
from ..tree import Layout
from .checks import Judged, Judgement, graded, nearest_its_limit
from .verdict import SD_GOOD, SHIFT_GOOD

MOST = 1000  # draws of each set that are compared
PERMUTATIONS = 300
LEVEL = 0.01
USABLE = 0.3
SURE = 4.0  # standard errors


class Distance(NamedTuple):
    """value: the distance.   floor: what it stays below, but for one case in a hundred, if both sets are of one law.
    p_value: share of random divisions of the pooled draws that are as far apart."""

    value: float
    floor: float
    p_value: float


def mmd(x: Float[np.ndarray, "n D"], y: Float[np.ndarray, "m D"], seed: int = 0) -> Distance:
    """Maximum mean discrepancy, squared, of the Gaussian kernel.

    Definition: MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), pairs of different draws, k(a, b) = exp(-|a - b|^2 / 2 h),
                h the median squared distance in coordinates of the pooled sd. Unbiased: it may be negative.
    Arguments:  x, y: independent draws; evenly spaced 1,000 of each are used.
    Cost:       O(1000^2 (D + permutations)).
    Reference:  Gretton, Borgwardt, Rasch, Schoelkopf and Smola (2012), equation 3.  [gretton2012mmd]
    """
    pooled, n = _pooled(x, y)
    square = (pooled**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * pooled @ pooled.T, 0)
    h = float(np.median(distance[~np.eye(len(pooled), dtype=bool)])) or 1.0
    kernel = np.exp(-distance / (2 * h))
    np.fill_diagonal(kernel, 0)
    m = len(pooled) - n
    total = kernel.sum()

    def of(index: np.ndarray) -> float:
        first = np.zeros(len(pooled))
        first[index[:n]] = 1.0
        rows = kernel @ first
        xx, x_all = float(first @ rows), float(rows.sum())
        return xx / (n * (n - 1)) + (total - 2 * x_all + xx) / (m * (m - 1)) - 2 * (x_all - xx) / (n * m)

    return _against_chance(of, len(pooled), seed)


def sliced_wasserstein(
    x: Float[np.ndarray, "n D"], y: Float[np.ndarray, "m D"], n_projections: int = 64, seed: int = 0
) -> Distance:
    """Sliced 2-Wasserstein distance, in pooled standard deviations.

    Definition: SW^2 = mean over random directions v of W_2^2(v.x, v.y), each coordinate divided by its pooled sd.
    Cost:       O(projections . 1000 log 1000 . permutations).
    Reference:  Bonneel, Rabin, Peyre and Pfister (2015).  [bonneel2015sliced]
    """
    pooled, n = _pooled(x, y)
    v = np.random.default_rng([seed, 41]).standard_normal((pooled.shape[1], n_projections))
    projected = pooled @ (v / np.linalg.norm(v, axis=0))
    order = np.argsort(projected, axis=0)
    values = np.take_along_axis(projected, order, 0)
    grid = (np.arange(MOST) + 0.5) / MOST

    def of(index: np.ndarray) -> float:
        first = np.zeros(len(pooled), bool)
        first[index[:n]] = True
        mine = first[order]
        square = [
            np.mean((_quantiles(values[m, j], grid) - _quantiles(values[~m, j], grid)) ** 2)
            for j, m in enumerate(mine.T)
        ]
        return math.sqrt(float(np.mean(square)))

    return _against_chance(of, len(pooled), seed)


def _quantiles(ordered: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return ordered[np.minimum((grid * len(ordered)).astype(int), len(ordered) - 1)]


def _pooled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int]:
    """At most 1,000 draws of each, one after the other, divided by the pooled sd; and how many are the first's."""
    x, y = (np.asarray(a, np.float64)[:: -(-len(a) // MOST)] for a in (x, y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        asked, because = f"comparing draws of shapes {x.shape} and {y.shape}", "both are sets of points of one space"
        raise DataError(explain(asked, "they do not fit", because, "arrays (n, D) and (m, D), of two draws or more"))
    pooled = np.concatenate([x, y])
    if not np.isfinite(pooled).all():
        because = "no distance is defined to them"
        raise DataError(explain("comparing draws", "some are not finite", because, "the finite ones"))
    sd = pooled.std(0)
    return (pooled - pooled.mean(0)) / np.where(sd > 0, sd, 1.0), len(x)


def _against_chance(of: Callable[[np.ndarray], float], total: int, seed: int) -> Distance:
    """Exact under exchangeability: the division at hand is one of many."""
    rng = np.random.default_rng([seed, 40])
    value = of(np.arange(total))
    chance = np.array([of(rng.permutation(total)) for _ in range(PERMUTATIONS)])
    p = (1 + (chance >= value).sum()) / (1 + PERMUTATIONS)
    return Distance(value, float(np.quantile(chance, 1 - LEVEL)), float(p))


@dataclasses.dataclass
class Agreement(Judged):
    """A fit's draws beside draws known to be right.

    verdict, reasons: as of a fit, but from this comparison alone.   shift: largest difference of a mean, in sd of the
    right draws.   log_sd: largest |log ratio| of an sd.   mmd, sliced_wasserstein: with their floors and p-values.
    """

    shift: float
    log_sd: float
    mmd: Distance
    sliced_wasserstein: Distance

    def __repr__(self) -> str:
        return "\n".join([f"Agreement: {self.verdict}"] + [f"  - {r}" for r in self.reasons])


def against(fit: Any, reference: PyTree, seed: int = 0) -> Agreement:
    """Are the draws of a fit those of the posterior, of which `reference` are independent draws?

    Arguments:  reference: a tree like that of `fit.sample`, leading axis n (n, rows for a latent with each row: of the rows
                the verdict was made on). Thin chains first: draws are counted as independent.
    Returns:    `Agreement`: RELIABLE if means and sds agree to 0.06 sd and 5%, and neither distance finds a difference.
    Raises:     DataError if the trees do not fit.
    """
    own = jax.tree.map(np.asarray, fit._posterior)
    given = jax.tree.map(np.asarray, reference)
    shape = lambda tree: jax.tree.map(lambda a: tuple(a.shape[1:]), tree)
    if jax.tree.structure(own) != jax.tree.structure(given) or Layout(shape(own)) != Layout(shape(given)):
        wrong = f"they are {shape(given)} a draw, and the fit's are {shape(own)}"
        because, instead = "coordinates are compared one by one", "a tree as fit.sample gives it"
        raise DataError(explain("`against` these draws", wrong, because, instead))
    flat = lambda tree: np.concatenate(
        [np.asarray(a, np.float64).reshape(len(a), -1) for a in jax.tree.leaves(tree)], 1
    )
    return _judged(flat(own), flat(given), Layout(shape(own)).names(), seed)


def _judged(x: np.ndarray, y: np.ndarray, names: list[str], seed: int) -> Agreement:
    judge = Judgement()
    sd = np.where(y.std(0) > 0, y.std(0), 1.0)
    shifts, ratios = np.abs(x.mean(0) - y.mean(0)) / sd, np.abs(np.log(np.maximum(x.std(0), 1e-300) / sd))
    error = math.sqrt(1 / len(x) + 1 / len(y))
    shift, ratio = float(shifts.max()), float(ratios.max())
    worst = names[int(np.argmax(np.maximum(shifts, ratios)))]
    limits = max(SHIFT_GOOD, SURE * error), max(SD_GOOD, SURE * error)
    level = max(graded(shift, limits[0], USABLE), graded(ratio, limits[1], USABLE))
    value, good = nearest_its_limit((shift, limits[0]), (ratio, limits[1]))
    judge(
        "shift",
        level,
        f"Means differ by up to {shift:.2f} sd and sds by up to {ratio:.0%} (worst: {worst}); these many draws "
        f"can tell differences of {SURE * error:.2f}.",
        value=value,
        limits=(good, USABLE),
        where=worst,
    )
    if SURE * error > 2 * SHIFT_GOOD:
        judge("few_draws", 1, "There are too few draws to tell whether they agree as closely as a reliable fit must.")
    found = mmd(x, y, seed), sliced_wasserstein(x, y, seed=seed)
    for what, d in zip(("maximum mean discrepancy", "sliced Wasserstein distance"), found, strict=True):
        judge(
            "distance",
            0 if d.p_value > LEVEL else 1,
            f"The {what} is {d.value:.2g}; chance alone gives up to {d.floor:.2g} (p = {d.p_value:.2g}).",
            value=d.value,
            limits=(d.floor, math.inf),
            where=what,
        )
    verdict, checks = judge.result()
    return Agreement(verdict, checks, shift, ratio, *found)
