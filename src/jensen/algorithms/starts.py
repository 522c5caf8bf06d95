"""Where solvers begin: points, scales, Gaussians."""

from typing import Any

import numpy as np
from jaxtyping import Float

from .ascent import ascend
from .gaussian import Gaussian
from .laplace import Laplace, starting_points
from .low_rank import DENSE
from .solver import Solution
from .target import BLOCK, Target

PROBES = BLOCK // 2  # of the diagonal of the Hessian: one call of the compiled program
DIFFERENCE = 1e-5
JITTER = 0.1


def single(q: Any) -> Any:
    """q, or the heaviest component of a mixture."""
    return q.components[int(np.argmax(q.weights))] if hasattr(q, "components") else q


def dense_start(target: Target, start: Solution | None, seed: int) -> Gaussian | None:
    """The Gaussian of the solution below, or Laplace's; N(0, I) for a large D, or where there is no start at all."""
    if start is None:
        start = Laplace().solve(target, None, seed) if target.dim <= DENSE else Solution(None)
        if start.q is None:
            return Gaussian(np.zeros(target.dim), np.eye(target.dim))
    if start.q is None:
        return None
    q = single(start.q)
    if isinstance(q, Gaussian):
        return Gaussian(q.mean, np.diag(q.root)) if q.diagonal else q
    if hasattr(q, "dense"):
        return q.dense()
    u = q.sample(np.random.default_rng([seed, 33]), max(1024, 8 * target.dim))
    return Gaussian(u.mean(0), np.linalg.cholesky(np.cov(u.T).reshape(target.dim, target.dim)))


def diagonal_start(target: Target, start: Solution | None, seed: int, n_steps: int = 30) -> Gaussian | None:
    """A mean and a scale for each coordinate: of the solution below, or after a few steps uphill, by the curvature."""
    if start is not None:
        q = single(start.q) if start.q is not None else None
        if q is None or (hasattr(q, "mean") and hasattr(q, "sd")):
            return None if q is None else Gaussian(q.mean, q.sd)
        u = q.sample(np.random.default_rng([seed, 33]), 1024)
        return Gaussian(u.mean(0), u.std(0))
    u = starting_points(target, seed, 4)[0]
    paths = ascend(target, u, max_iterations=n_steps, tolerance=0.1, stop=lambda: target.budget.spent)
    if not paths:
        return None
    best = max(paths, key=lambda p: p.value[-1])
    return Gaussian(best.end, curvature_scale(target, best.end, best.alpha[-1], seed))


def first_points(target: Target, start: Solution | None, seed: int, n: int) -> Float[np.ndarray, "n D"]:
    """n over-dispersed points: around the solution below, three times as wide; or some of the best of many."""
    rng = np.random.default_rng([seed, 31])
    if start is None or start.q is None:
        u = starting_points(target, seed, n)[0]
        return u + JITTER * rng.standard_normal(u.shape)  # from a mode itself no path would lead anywhere
    u = start.q.sample(rng, n)
    centre = getattr(start.q, "mean", None)
    return u if centre is None else centre + 3 * (u - centre)


def coordinate_scale(target: Target, u: Float[np.ndarray, "P D"], seed: int) -> Float[np.ndarray, " D"]:
    """1 / sqrt |H_ii| where a few steps uphill lead."""
    paths = ascend(target, u, max_iterations=20, tolerance=0.1, stop=lambda: target.budget.spent)
    if not paths:
        return np.ones(target.dim)
    best = max(paths, key=lambda p: p.value[-1])
    return curvature_scale(target, best.end, best.alpha[-1], seed)


def curvature_scale(
    target: Target, u: Float[np.ndarray, " D"], guess: Float[np.ndarray, " D"], seed: int
) -> Float[np.ndarray, " D"]:
    """1 / sqrt |H_ii| by random probes, exact for a diagonal Hessian H: E[v * (H v)] for random signs v.

    Arguments:  guess: of 1 / |H_ii|, the metric of the differences, and of what no probe tells.
    Cost:       64 gradients.   Reference:  Bekas, Kokiopoulou and Saad (2007).
    """
    scale = np.sqrt(guess)
    for _ in range(2):  # the second time with differences of the right size
        signs = np.random.default_rng([seed, 34]).choice([-1.0, 1.0], (PROBES, u.size))
        step = DIFFERENCE * signs * scale
        value, g = target(np.concatenate([u + step, u - step]))
        ok = np.isfinite(value[:PROBES]) & np.isfinite(value[PROBES:])
        if not ok.any():
            return scale
        product = (g[:PROBES] - g[PROBES:])[ok] / (2 * DIFFERENCE)
        curvature = np.abs((signs[ok] * product).mean(0)) / scale  # in u: H_ii
        known = np.isfinite(curvature) & (curvature > 1e-300)
        scale = np.where(known, 1 / np.sqrt(np.where(known, curvature, 1.0)), scale)
    return scale
