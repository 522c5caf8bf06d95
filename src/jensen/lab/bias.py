"""Is the mean of an estimator the gradient? Against the exact one, or against estimators that are known to be unbiased."""

from typing import Any, NamedTuple

import numpy as np

from ..tree import default_float
from .probe import Sums

LEVEL = 1e-3  # chance that a table of unbiased estimators shows a biased one
SHRINK = (
    20.0  # pseudo-observations of the array's mean variance: a coordinate that hardly ever moved has none of its own
)
ROUNDING = 64  # units in the last place that a mean over steps may be off, of its own size
CANCELLED = (
    16  # units in the last place of the terms that the gradient is a sum of: it may be nothing but their rounding
)


class Reference(NamedTuple):
    mean: np.ndarray
    variance: np.ndarray  # of the mean; 0 if exact
    n: int
    source: str  # "exact", or whose means were pooled


class Bias(NamedTuple):
    """`size`: norm of the bias, less what noise makes of it; `low`, `high`: its 95% interval; `of`: norm of the gradient."""

    size: float
    low: float
    high: float
    of: float
    max_z: float
    threshold: float
    source: str

    @property
    def seen(self) -> bool:
        return self.max_z > self.threshold

    @property
    def relative(self) -> tuple[float, float, float]:
        """(size, low, high) in units of the gradient's norm."""
        return tuple(v / self.of if self.of > 0 else np.inf for v in (self.size, self.low, self.high))  # pyright: ignore

    def words(self) -> str:
        if not self.source:
            return "not tested: no other estimator to compare with"
        size, low, high = self.relative
        if not self.seen:
            below = f", below {high:.1%}" if np.isfinite(high) and high < 1 else ""
            return f"none seen (|z| max {self.max_z:.1f}{below})"
        if not np.isfinite(size) or size > 10:  # the gradient all but vanishes here
            return f"{self.size:.2g} [{self.low:.2g}, {self.high:.2g}], the gradient being {self.of:.2g}"
        return f"{size:.1%} of the gradient [{low:.1%}, {high:.1%}]"


UNTESTED = Bias(np.nan, np.nan, np.nan, np.nan, np.nan, np.inf, "")


def variance_of_mean(one: Sums, arrays: list[slice]) -> np.ndarray:
    """Of each coordinate, from its own variance and a little of its array's mean one."""
    variance = one.squares / max(one.n - 1, 1)
    out = variance.copy()
    for at in arrays:
        out[at] += variance[at].mean() * SHRINK / one.n
    return out / one.n


def exact_reference(one: Sums) -> Reference:
    return Reference(one.mean, np.zeros_like(one.mean), 10**9, "exact")


def pooled_reference(members: dict[str, Sums], arrays: list[slice]) -> Reference | None:
    """The mean of known-unbiased estimators, weighted by their precision; None where there are none."""
    if not members:
        return None
    noise = {name: max(one.variance / one.n, 1e-300) for name, one in members.items()}
    total = sum(1 / v for v in noise.values())
    weight = {name: 1 / v / total for name, v in noise.items()}
    mean = sum(w * members[name].mean for name, w in weight.items())
    variance = sum(w**2 * variance_of_mean(members[name], arrays) for name, w in weight.items())
    return Reference(np.asarray(mean), np.asarray(variance), sum(m.n for m in members.values()), ", ".join(members))


def compare(
    one: Sums,
    reference: Reference | None,
    arrays: list[slice],
    n_tests: int,
    sizes: np.ndarray,
    part: Any = slice(None),
) -> Bias:
    """The joint test of all coordinates (Bonferroni, Student's t) and an interval for the norm of the bias.

    sizes: of the terms that each coordinate is a sum of. Where these cancel, as at the end of a fit, what is left is their
    rounding, different for each estimator and none of them biased by it.

    Derivation: the error d - b of the difference d is normal with variances s_j^2, so by Szekely and Bakirov (2003)
        P(||d - b|| > c S) <= P(|N| > c), S^2 = sum s_j^2, for c > 1.24, whatever its correlations: ||b|| is within
        c S of ||d||, c = 1.96.
    """
    from scipy import stats

    if reference is None:
        return UNTESTED
    own = variance_of_mean(one, arrays)
    off = (one.mean - reference.mean)[part]
    scale = np.sqrt(np.mean(reference.mean**2)) + np.sqrt(one.variance / max(len(one.mean), 1))
    unit = float(np.finfo(default_float()).eps)
    floor = (unit * (ROUNDING * (np.abs(reference.mean[part]) + scale) + CANCELLED * sizes[part])) ** 2
    variance = own[part] + reference.variance[part] + floor
    max_z = float(np.max(np.abs(off) / np.sqrt(variance), initial=0.0)) if np.isfinite(off).all() else np.inf
    noise, norm = float(variance.sum()), float((off**2).sum())
    c = float(stats.t.isf(0.025, max(one.n - 1, 1)))
    length, half = np.sqrt(norm), c * np.sqrt(noise)
    of = float(np.sqrt(max((reference.mean[part] ** 2).sum() - reference.variance[part].sum(), 0.0)))
    threshold = float(stats.t.isf(LEVEL / (2 * n_tests), max(min(one.n, reference.n) - 1, 1)))
    size = float(np.sqrt(max(norm - noise, 0.0)))
    return Bias(size, float(max(length - half, 0.0)), float(length + half), of, max_z, threshold, reference.source)
