"""Modes of a density as they are known: where, how wide, how much they hold, and which points they explain."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .gaussian import LOG_2PI, Gaussian, StudentT
from .target import BLOCK, Target

NEWTON = 6  # steps of a polish
FIRST_STEP, STEP = 1e-3, 1e-2  # of the differences of gradients, in sd
FLAT = 1e-6  # curvature of a flat direction: no wider than 1000 sd of the Gaussian that it was looked at with
SADDLE = 1e-3  # of the largest curvature: below minus this the point is no maximum
CURVED = (
    0.05  # of the largest, in coordinates in which all should be 1: above, the maximum is isolated in this direction
)
SETTLED = 1e-2  # Newton decrement: its half square is the gain that is left
DIP = 1.0  # nats by which the density falls between two modes
TIGHT = 0.02  # relative misfit of a quadratic that explains a point
FEWEST = 12  # draws, where they are dear
NEAR = 0.7  # of the typical radius: there a point is a mode's, roughly


@dataclasses.dataclass
class Mode:
    """A maximum of log p.

    gaussian:  the mean at the maximum, the covariance minus the inverse Hessian.   value: log p there.
    log_z:     about what it holds: log of the mean of p / t over draws of a Student t on the Gaussian.
    maximum:   False for a saddle, or where the search ended on a slope.   isolated: is it curved in all directions? A point on
               a ring is not.
    alive:     does it hold enough to matter, and is it no part of another one?
    hits:      starts that led here.   origin: what kind of start led here first; "" for one that was known before.
    misfit:    by how much, at r sd, log p differs from the quadratic, over r^2.
    """

    gaussian: Gaussian
    value: float
    maximum: bool = True
    isolated: bool = True
    log_z: float = -math.inf
    alive: bool = True
    hits: int = 1
    origin: str = ""
    misfit: float | None = None

    @property
    def at(self) -> Float[np.ndarray, " D"]:
        return self.gaussian.mean

    def radius(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        """Distance in sd."""
        return np.linalg.norm(self.gaussian.whiten(u), axis=1)

    def quadratic(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        """log p as the expansion at the maximum has it."""
        return self.value - 0.5 * self.radius(u) ** 2


def polished(target: Target, u: Float[np.ndarray, " D"], like: Gaussian) -> Mode:
    """The maximum near u, by Newton steps with Hessians in coordinates whitened by the last one (`like` at first).

    Cost:   2 D + 4 gradients a step, at most six.
    """
    value, g = (a[0] for a in target(u[None]))
    root: Any = np.diag(like.root) if like.diagonal else like.root
    least = decrement = math.inf
    for i in range(NEWTON):
        values, vectors = np.linalg.eigh(-whitened_hessian(target, u, root, STEP if i else FIRST_STEP))
        top = max(np.abs(values).max(), 1e-300)
        least = values.min() / top
        new = root @ (vectors / np.sqrt(np.maximum(np.abs(values), FLAT * max(top, 1.0))))
        if not np.isfinite(new).all():
            break
        upper: Any = np.linalg.qr(new.T, mode="r")
        root = upper.T * np.where(np.diagonal(upper) < 0, -1.0, 1.0)
        pulled = root.T @ g
        decrement = float(np.linalg.norm(pulled))
        if decrement < SETTLED and i > 0:
            break
        trial = u + np.array([1.0, 0.3, 0.1, 0.01])[:, None] * (root @ pulled)
        trial_value, trial_g = target(trial)
        best = int(trial_value.argmax())
        if trial_value[best] > value:
            u, value, g = trial[best], trial_value[best], trial_g[best]
        elif i > 0:
            break
    maximum = bool(decrement < 10 * SETTLED and least > -SADDLE)
    return Mode(Gaussian(u, root), float(value), maximum, isolated=maximum and bool(least > CURVED))


def whitened_hessian(target: Target, u: np.ndarray, root: np.ndarray, step: float) -> np.ndarray:
    d = u.size
    value, g = target(np.concatenate([u + step * root.T, u - step * root.T]))
    g = np.where(np.isfinite(value)[:, None], g, np.nan)
    h = (g[:d] - g[d:]) @ root / (2 * step)
    return np.nan_to_num((h + h.T) / 2, nan=0.0, posinf=0.0, neginf=0.0)


def modes_of(paths: Sequence[Any]) -> list[Mode]:
    """The ends of Newton's paths (`laplace.Path`) that are maxima, as modes."""
    found = []
    for path in paths:
        if path.least > -SADDLE and path.slope < 10 * SETTLED:
            found.append(Mode(Gaussian(path.u, path.local.root), path.value, isolated=path.least > CURVED))
    return found


def held(target: Target, mode: Mode, rng: np.random.Generator, df: float = 8.0) -> float:
    """log of the integral of p about a mode, by one block of draws of a Student t, or fewer."""
    t = StudentT(mode.gaussian, df)
    u = t.sample(rng, target.fewer(BLOCK, FEWEST))
    with np.errstate(invalid="ignore"):
        found = float(np.logaddexp.reduce(target.value(u) - t.log_prob(u)) - math.log(len(u)))
    return found if math.isfinite(found) else -math.inf


def measure_misfit(target: Target, mode: Mode, rng: np.random.Generator) -> float:
    """How far log p is from the quadratic, over r^2, at 0.5 to 2.5 times the typical distance: ten times the upper quartile."""
    n = target.fewer(BLOCK // 2, FEWEST)
    e = rng.standard_normal((n, target.dim)) * rng.uniform(0.5, 2.5, (n, 1))
    square = (e**2).sum(1)
    gap = np.abs(target.value(mode.gaussian.apply(e)) - mode.value + 0.5 * square) / square
    return 10 * float(np.quantile(np.where(np.isfinite(gap), gap, np.inf), 0.75)) + 1e-10


def explained(modes: Sequence[Mode], u: np.ndarray, value: np.ndarray, g: np.ndarray, roughly: bool) -> np.ndarray:
    """For each point the number of the mode whose quadratic predicts value and gradient there; -1 where none does.

    Definition: |L^-1 (u + S g - m)| and |log p - (v - r^2 / 2)| small against r and r^2: a Newton step from u lands at
                the maximum.   roughly: or u is so near that a small misfit does not matter.
    """
    out = np.full(len(u), -1)
    for k, mode in enumerate(modes):
        if not mode.maximum:
            continue
        z = mode.gaussian.whiten(u)
        r = np.linalg.norm(z, axis=1)
        lands = np.linalg.norm(z + mode.gaussian.pull(g), axis=1)
        gap = np.abs(value - mode.value + 0.5 * r**2)
        ok = (lands <= np.maximum(TIGHT * r, 0.5)) & (gap <= np.maximum(TIGHT * r**2, 0.5))
        if roughly:
            ok |= (r < NEAR * math.sqrt(u.shape[1])) & (lands < NEAR * r) & (gap < 0.5 + 0.25 * r**2)
        out = np.where((out < 0) & ok, k, out)
    return out


def joined(target: Target, a: Mode, b: Mode, n: int = 12) -> bool:
    """Does the density fall by less than a nat on the line between two maxima?"""
    x = np.linspace(0, 1, n + 2)[1:-1, None]
    return bool(target.value(a.at + x * (b.at - a.at)).min() > min(a.value, b.value) - DIP)


def nearest(modes: Sequence[Mode], u: Float[np.ndarray, "n D"]) -> np.ndarray:
    """Each point's mode: the one whose quadratic is highest there."""
    return np.argmax([m.quadratic(u) for m in modes], 0)


def shares(modes: Sequence[Mode]) -> np.ndarray:
    """Of the mass, by what each holds."""
    log_z = np.array([m.log_z for m in modes])
    w = np.exp(log_z - log_z.max())
    return w / w.sum()


def forecast(
    modes: Sequence[Mode], starts: Float[np.ndarray, "n D"], log_z: float, followed: float, rng: np.random.Generator,
    widths: Sequence[float], share: float = 0.1, n: int = 150,
) -> dict[float, float]:  # fmt: skip
    """How likely the search would have seen another mode: a chance for each width, relative to a known mode; the least over
    the known ones.

    Definition: imagine a Gaussian mode that holds `share`, `width` times as wide as a known one, 6 to 60 of its sd away
                in a random direction. It would have been seen where it would have been the higher one at a start that
                was followed. A forecast under this picture, not a bound on what was missed.
    Arguments:  starts: where the search looked.   log_z: the evidence.   followed: share of the unexplained starts that
                were followed.   n: imagined modes, of each width.
    Cost:       no evaluation.
    """
    known = np.max([m.quadratic(starts) for m in modes], 0)
    size = np.array(widths)
    seen = np.zeros((len(modes), len(widths)))
    for which, mode in enumerate(modes):
        z = mode.gaussian.whiten(starts)
        for _ in range(max(n // len(modes), 30)):
            e = rng.standard_normal(starts.shape[1])
            away = mode.gaussian.apply((e / np.linalg.norm(e))[None])[0] - mode.at
            centre = mode.at + away * np.exp(rng.uniform(math.log(6), math.log(60)))
            if min(m.radius(centre[None])[0] for m in modes) < 5:
                centre = mode.at + 60 * away
            square = ((z - mode.gaussian.whiten(centre[None])) ** 2).sum(1)
            constant = math.log(share) + log_z - mode.gaussian.log_det - 0.5 * e.size * (LOG_2PI + 2 * np.log(size))
            higher = (constant - 0.5 * square[:, None] / size**2 > known[:, None]).sum(0)
            seen[which] += 1 - (1 - followed) ** higher
        seen[which] /= max(n // len(modes), 30)
    return dict(zip(widths, seen.min(0).tolist(), strict=True))


def near(a: Mode, b: Mode, share: float) -> bool:
    """Closer than this share of the typical radius of one of them."""
    return bool(min(a.radius(b.at[None])[0], b.radius(a.at[None])[0]) < share * math.sqrt(a.at.size))


def part_of(target: Target, modes: Sequence[Mode], mode: Mode) -> int | None:
    """The number of the one that this is part of: near, and joined to it; None if it is a mode of its own."""
    same = (k for k, m in enumerate(modes) if m.maximum and near(mode, m, 1.0) and joined(target, m, mode))
    return next(same, None)


class Residual:
    """log (p - sum_k exp quadratic_k): what the modes leave over; -inf where that is nothing but rounding."""

    def __init__(self, target: Target, modes: list[Mode]):
        self.target, self.modes = target, modes

    def log_sum(self, u: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce([m.quadratic(u) for m in self.modes], 0)

    def __call__(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.of(u, *self.target(u))

    def of(self, u: np.ndarray, value: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        each = np.array([m.quadratic(u) for m in self.modes])
        total = np.logaddexp.reduce(each, 0)
        parts = np.exp(each - total)
        slope = sum(w[:, None] * m.gaussian.precise(m.at - u) for w, m in zip(parts, self.modes, strict=True))
        x = value - total
        ratio = np.expm1(np.minimum(x, 30.0))  # p / sum - 1
        rest = np.where(x > 30, value, total + np.log(np.maximum(ratio, 1e-300)))
        gradient = np.where(
            (x > 30)[:, None], g, ((ratio + 1)[:, None] * g - slope) / np.maximum(ratio, 1e-300)[:, None]
        )
        none = ~((x > 1e-11 * (1 + np.abs(value))) & np.isfinite(value) & np.isfinite(gradient).all(1))
        return np.where(none, -np.inf, rest), np.where(none[:, None], 0.0, gradient)
