"""Stein's identities: what the gradient of log p says about draws, without the density of q and without normalisation."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

LEVEL = 1e-3  # of all scores together
PAIRED = 1000  # draws whose pairs are summed
BOOTSTRAPS = 500
LARGE = 500  # coordinates above which directions are those of the axes
FLAT = 1e-10  # share of the largest variance below which q has no width in a direction


def identity_scores(
    x: Float[np.ndarray, "T C D"], g: Float[np.ndarray, "T C D"]
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """|z| of the identities E[g] = 0 and E[(u - m) g] = -1 for each coordinate, g = grad log p, m the median.

    The error is that between the C chains of T draws each; independent draws are chains of one draw.
    """
    c = x.shape[1]
    score = lambda terms: terms.mean((0, 1)) / (terms.mean(0).std(0, ddof=1) / math.sqrt(c) + 1e-12)
    return np.abs(score(g)), np.abs(score((x - np.median(x, (0, 1))) * g + 1))


def by_chance(n_coordinates: int, n_chains: int) -> float:
    """What the largest of the 2 D two-sided scores of exact draws stays below, but for one case in a thousand."""
    return float(student_t.isf(LEVEL / (4 * n_coordinates), n_chains - 1))


class Misfit(NamedTuple):
    """How far q is from the posterior, in numbers with errors.

    shift: of a mean, in posterior sd, along the worst direction.   log_sd: |log sd(q) - log sd(p)|, likewise.
    shift_se, log_sd_se: their standard errors.   worst: the coordinate with the largest part in it.
    """

    shift: float
    shift_se: float
    log_sd: float
    log_sd_se: float
    worst: int


def misfit(x: Float[np.ndarray, "S D"], g: Float[np.ndarray, "S D"]) -> Misfit:
    """Of independent draws of one q, by the identities in all directions.

    Definition: in q's whitened coordinates z, E[g_z] and A = -E[z g_z^T]. If p is a Gaussian, the eigenvalues of A are
                variances of q over those of p along p's principal directions: also where every coordinate alone
                satisfies E[(u - m) g] = -1, as those of the best mean-field q do. Directions are sought in one half of
                the draws and measured in the other, so that of many none looks bad by chance.
    """
    half = len(x) // 2
    u, gradient = _whitened(x, g)
    (u_a, u_b), (g_a, g_b) = (u[:half], u[half:]), (gradient[:half], gradient[half:])
    found = []
    for v in (*_extremes(u_a, g_a), _unit(g_a.mean(0))):
        z, s = u_b @ v, g_b @ v
        ratio, ratio_se = _mean(-(z - z.mean()) * s)
        (slope, slope_se), root = _mean(s), math.sqrt(max(ratio, 1e-12))
        found.append(Misfit(abs(slope) / root, slope_se / root, *_log_sd(ratio, ratio_se), int(np.argmax(np.abs(v)))))
    place, spread = max(found, key=lambda m: m.shift), max(found, key=lambda m: m.log_sd)
    worst = spread.worst if spread.log_sd >= place.shift else place.worst
    return Misfit(place.shift, place.shift_se, spread.log_sd, spread.log_sd_se, worst)


def _extremes(u: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The two directions along which q is narrowest and widest against p; of many coordinates, two of these."""
    if u.shape[1] > LARGE:
        ratio = -(u * g).mean(0)
        return np.eye(u.shape[1])[[int(np.argmin(ratio)), int(np.argmax(ratio))]]
    a = -(u.T @ g) / len(u)
    return np.linalg.eigh(0.5 * (a + a.T))[1].T[[0, -1]]


def misfit_of_rows(x: Float[np.ndarray, "K R D"], g: Float[np.ndarray, "K R D"]) -> Misfit:
    """Of K draws for each of R rows: the root mean square over rows of what each row's q is off by, of the worst
    coordinate. What noise adds to a square is taken off, so that neither many rows nor few draws mislead, and errors of
    opposite sign do not cancel.
    """
    k, r, _ = x.shape
    centred = x - x.mean(0)
    sd = centred.std(0, ddof=1)  # (R, D)
    places, spreads = _squares(sd * g), _squares(1 + centred * g * k / (k - 1))
    shift, log_sd = (np.sqrt(np.maximum(a.mean(0), 0)) for a in (places, spreads))
    errors = [a.std(0, ddof=1) / math.sqrt(r) if r > 1 else np.full(a.shape[1], math.inf) for a in (places, spreads)]
    se = [e / np.maximum(2 * m, np.sqrt(e)) for e, m in zip(errors, (shift, log_sd), strict=True)]
    i, j = int(np.argmax(shift)), int(np.argmax(log_sd))
    worst = i if shift[i] >= log_sd[j] else j
    half = 0.5  # 1 - var(q) / var(p) is about twice the difference of the log sds
    return Misfit(float(shift[i]), float(se[0][i]), half * float(log_sd[j]), half * float(se[1][j]), worst)


def _squares(terms: Float[np.ndarray, "K R D"]) -> Float[np.ndarray, "R D"]:
    """Unbiased estimates of the squared means over draws."""
    return terms.mean(0) ** 2 - terms.var(0, ddof=1) / len(terms)


def _whitened(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws of mean 0 and covariance I, each coordinate as close to its own as can be, and the gradient in them. Where
    q has no width at all there is none afterwards."""
    sd = np.where(x.std(0) > 0, x.std(0), 1.0)
    z, s = (x - x.mean(0)) / sd, g * sd
    if x.shape[1] > LARGE:
        return z, s
    variance, v = np.linalg.eigh(z.T @ z / len(z))
    root = np.sqrt(np.where(variance > FLAT * variance[-1], variance, np.inf))
    return z @ (v / root) @ v.T, s @ (v * np.where(np.isfinite(root), root, 0)) @ v.T


def _unit(v: np.ndarray) -> np.ndarray:
    size = float(np.linalg.norm(v))
    return v / size if size > 0 else np.eye(len(v))[0]


def _mean(a: np.ndarray) -> tuple[float, float]:
    return float(a.mean()), float(a.std(ddof=1) / math.sqrt(len(a)))


def _log_sd(ratio: float, se: float) -> tuple[float, float]:
    """|log| of the root of a ratio of variances; infinite if it is negative (the density grows outwards)."""
    return (abs(0.5 * math.log(ratio)), 0.5 * se / ratio) if ratio > 0 else (math.inf, 0.0)


def kernel_stein(x: Float[np.ndarray, "S D"], g: Float[np.ndarray, "S D"], seed: int = 0) -> tuple[float, float]:
    """Kernel Stein discrepancy, squared, and its p-value under exact independent draws.

    Definition: KSD^2 = mean over pairs i != j of
                k g_i.g_j + g_i.grad_j k + g_j.grad_i k + tr grad_i grad_j k,  k = (1 + |z_i - z_j|^2 / h)^(-1/2),
                in standardised coordinates, h the median squared distance; p-value by a bootstrap with random signs.
    Returns:    (KSD^2, which may be negative by chance; the share of bootstraps that reach it).
    Cost:       O(S^2 D) on at most 1,000 of the draws.
    Reference:  Gorham and Mackey (2017), the kernel; Liu, Lee and Jordan (2016); Chwialkowski, Strathmann and Gretton
                (2016), the test.  [gorham2017ksd, liu2016ksd]
    """
    sd = np.where(x.std(0) > 0, x.std(0), 1.0)
    some = slice(None, None, -(-len(x) // PAIRED))
    z, s = ((x - x.mean(0)) / sd)[some], (g * sd)[some]
    n, d = z.shape
    square = (z**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * z @ z.T, 0)
    h = float(np.median(distance[~np.eye(n, dtype=bool)])) or 1.0
    base = 1 + distance / h
    slope = base**-1.5 / h  # grad_i k = -slope (z_i - z_j)
    along = (s * z).sum(1)[:, None] - s @ z.T  # s_i . (z_i - z_j)
    u = base**-0.5 * (s @ s.T) + slope * (along + along.T) + d * slope - 3 * base**-2.5 * distance / h**2
    np.fill_diagonal(u, 0)
    value = u.sum() / (n * (n - 1))
    signs = np.random.default_rng([seed, 31]).choice([-1.0, 1.0], (n, BOOTSTRAPS))
    chance = ((u @ signs) * signs).sum(0) / (n * (n - 1))
    return float(value), float((1 + (chance >= value).sum()) / (1 + BOOTSTRAPS))
