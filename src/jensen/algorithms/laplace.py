"""Laplace: a damped Newton search for modes from several starts, and the best local Gaussian on the way."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from .ascent import ascend
from .budget import OutOfBudget
from .gaussian import LOG_2PI, Gaussian, safe_cholesky, standardised_draws
from .solver import AbstractSolver, Solution
from .target import BLOCK, Target

DAMPINGS = np.array([0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e4])  # tried in one batch instead of a trust region
STEP = 1e-4  # of the finite differences, in units of the local scale
FLOOR = 1e-10  # relative to the largest curvature of the scaled Hessian
RUNAWAY = 1e30
WIDE = 100  # dimensions above which a Hessian costs more than a climb by gradients
FEWEST_STARTS, FEWEST_DRAWS = 2, 8  # of a density that is dear
CLIMB, CLOSE_ENOUGH = 300, 1e-3  # steps; g^T H g, twice the gain that is left
ONE_END = 0.1  # of a local scale: ends that are no further apart, and as high, are one
MODE, AT_TOP = 3.0, 0.1  # nats a dimension by which the ELBO at a mode may lie below its integral; |L^T g| there
DISTINCT = 1.0  # local Gaussians whose means are closer than this (whitened, each of the other's sd) are one


@dataclasses.dataclass
class Path:
    """One search: where it is, and the best local Gaussian it has passed."""

    u: Float[np.ndarray, " D"]
    value: float
    gradient: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    best: Gaussian | None = None
    elbo: float = -np.inf
    done: bool = False
    worse: int = 0
    local: Gaussian | None = None  # where the last Hessian was taken, by its absolute value
    least: float = -np.inf  # eigenvalue of minus that Hessian, relative to the largest

    @property
    def slope(self) -> float:
        """|L^T g| by the last Hessian: half its square is the gain that is left."""
        return np.inf if self.local is None else float(np.linalg.norm(self.local.pull(self.gradient[None])))


@dataclasses.dataclass
class Laplace(AbstractSolver):
    """The Gaussian N(u*, (-H)^-1) at a mode u*, H the Hessian of the log density there.

    Definition: saddle-free Newton, u <- u + (|H| + damping)^-1 g in coordinates scaled to |H_ii| = 1, by differences of
                batched gradients. Hierarchies may have no mode, so of the local Gaussians along each path the one with
                the highest ELBO on fixed standardised draws is kept; distinct ones (up to `n_components`) are all kept.
                Where evaluations are dear, or dimensions many, limited-memory BFGS goes first, from fewer starts, and
                Newton from its distinct ends; from the starts only if these turn out to be no modes.
    Cost:       2 D gradients an iteration and a start; about 50 and then 4 D a start where BFGS goes first.
    Reference:  Dauphin et al. (2014); Tierney and Kadane (1986).  [dauphin2014saddlefree]
    """

    n_starts: int | None = None
    n_components: int = 4
    max_iterations: int = 60
    name: ClassVar = "laplace"
    about: ClassVar = "A Gaussian at each mode found, as wide as the curvature there says; the best of them is kept."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        n = self.n_starts or (8 if target.dim <= 30 else 5 if target.dim <= 150 else 3)
        u, value, gradient = starting_points(target, seed, n)
        some = np.linspace(0, len(u) - 1, min(len(u), target.fewer(n, FEWEST_STARTS))).astype(int)
        paths = [Path(u[i], float(value[i]), gradient[i], scale=np.ones(target.dim)) for i in some]
        found: list[Path] = []
        if target.smooth and paths and (target.pace.effort < 1 or target.dim > WIDE):
            found = search(target, ends(target, u[some]), seed, self.max_iterations)
        if not any(_is_mode(p) for p in found):
            found += search(target, paths, seed, self.max_iterations)
        return modes_solution(target, found, self.n_components)


def starting_points(target: Target, seed: int, n: int):
    """The n best of some over-dispersed points by log density, kept apart: (u, values, gradients)."""
    rng = np.random.default_rng([seed, 1])
    u = starts(rng, target.dim)
    value, gradient = target(u)
    order = np.argsort(-value)
    order = order[np.isfinite(value[order])]
    if not len(order):
        return u[:0], value[:0], gradient[:0]
    best = order[: max(n // 2, 1)]
    others = rng.permutation(order[len(best) :])[: n - len(best)]  # not only the best: they may share one valley
    index = np.concatenate([best, others])
    return u[index], value[index], gradient[index]


def starts(rng: np.random.Generator, d: int) -> Float[np.ndarray, "S D"]:
    """Points near 0 and far out, 0 first."""
    pool = [np.zeros((1, d)), rng.uniform(-2, 2, (BLOCK // 2 - 1, d)), 0.3 * rng.standard_normal((BLOCK // 2, d))]
    return np.concatenate([*pool, rng.standard_normal((BLOCK, d)) * 10.0 ** rng.uniform(-1, 2, (BLOCK, 1))])


def ends(target: Target, u: Float[np.ndarray, "P D"]) -> list[Path]:
    """Where climbs by gradients from these points come to an end: the distinct ends."""
    found: list[Path] = []
    for way in sorted(_climbed(target, u), key=lambda t: -t.value[-1]):
        scale = np.sqrt(way.alpha[-1])
        far = lambda p, at=way.end, s=scale: np.abs((p.u - at) / (p.scale + s)).max() > ONE_END
        if np.isfinite(scale).all() and np.abs(way.end).max() < RUNAWAY and all(far(p) for p in found):
            found.append(Path(way.end, way.value[-1], way.gradient[-1], scale))
    return found


def _climbed(target: Target, u: np.ndarray) -> list:
    try:
        stop = lambda: target.budget.spent
        return ascend(target, u, max_iterations=CLIMB, tolerance=CLOSE_ENOUGH, stop=stop, keep=False)
    except OutOfBudget:
        return []


def _is_mode(path: Path) -> bool:
    """Did this path end at a maximum, and is the Gaussian there roughly what the density is? A funnel has an end that is no
    maximum, or one in its neck."""
    if path.local is None or path.least <= 0 or path.slope > AT_TOP:
        return False
    integral = path.value + 0.5 * path.u.size * LOG_2PI + path.local.log_det
    return bool(path.elbo > integral - 1 - MODE * path.u.size)


def hessians(target: Target, u: np.ndarray, step: np.ndarray) -> Float[np.ndarray, "K D D"]:
    """Hessians of the log density at K points, by central differences of gradients with steps (K, D)."""
    k, d = u.shape
    delta = step[:, :, None] * np.eye(d)  # (K, D, D)
    around = np.concatenate([u[:, None] + delta, u[:, None] - delta], 1).reshape(-1, d)
    value, g = target(around)
    g = np.where(np.isfinite(value)[:, None], g, np.nan).reshape(k, 2, d, d)
    h = (g[:, 0] - g[:, 1]) / (2 * step[:, :, None])
    return np.nan_to_num((h + np.swapaxes(h, 1, 2)) / 2, nan=0.0, posinf=0.0, neginf=0.0)


def search(target: Target, paths: list[Path], seed: int, max_iterations: int) -> list[Path]:
    """Runs the paths side by side until each has settled."""
    few = target.fewer(BLOCK, FEWEST_DRAWS)
    eps = standardised_draws(few if few < BLOCK else max(BLOCK, 2 * target.dim), target.dim, seed)[:few]
    for i in range(max_iterations):
        live = [p for p in paths if not p.done]
        if not live or (target.budget.spent and i > 0):  # a first look is always taken: there must be a q to judge
            break
        try:
            h = hessians(target, np.stack([p.u for p in live]), STEP * np.stack([p.scale for p in live]))
            steps = [_newton(p, hess) for p, hess in zip(live, h, strict=True)]
            _keep_best(target, live, [s[1] for s in steps], eps)
            trial = np.concatenate([p.u + s[0] for p, s in zip(live, steps, strict=True)])
            value, gradient = target(trial)
        except OutOfBudget:
            if any(p.best is not None for p in paths):
                break
            raise
        n = len(DAMPINGS)
        for j, path in enumerate(live):
            part = slice(j * n, (j + 1) * n)
            _advance(path, trial[part], value[part], gradient[part])
        _merge(live)
    return [p for p in paths if p.best is not None]


def _newton(path: Path, h: np.ndarray) -> tuple[np.ndarray, Gaussian]:
    """A fan of damped steps (dampings, D), and the local Gaussian with precision |H|."""
    curvature = np.abs(np.diagonal(h))
    scale = 1 / np.sqrt(np.maximum(curvature, max(1e-12, 1e-14 * curvature.max())))
    values, vectors = np.linalg.eigh(-h * scale[:, None] * scale)
    size = np.maximum(np.abs(values), FLOOR * max(np.abs(values).max(), 1e-300))
    pulled = vectors.T @ (scale * path.gradient)
    fan = (pulled / (size + DAMPINGS[:, None])) @ vectors.T * scale
    path.scale, path.least = scale, float(values[0] / max(np.abs(values).max(), 1e-300))
    flat = np.maximum(size, 1e-4)  # a nearly flat direction: no wider than 100 local scales
    covariance = (vectors / flat) @ vectors.T
    path.local = Gaussian(path.u, safe_cholesky(scale[:, None] * covariance * scale))
    return fan, path.local


def _keep_best(target: Target, live: list[Path], locals_: list[Gaussian], eps: np.ndarray) -> None:
    value = target(np.concatenate([q.apply(eps) for q in locals_]))[0].reshape(len(live), len(eps))
    for path, q, v in zip(live, locals_, value, strict=True):
        elbo = float(v.mean() + q.entropy()) if np.isfinite(v).all() else -np.inf
        if elbo > path.elbo or path.best is None:
            path.best, path.elbo, path.worse = q, max(elbo, path.elbo), 0
        else:
            path.worse += 1


def _advance(path: Path, trial: np.ndarray, value: np.ndarray, gradient: np.ndarray) -> None:
    i = int(np.argmax(value))
    gain = value[i] - path.value
    if not gain > 0:
        path.done = True
        return
    path.u, path.value, path.gradient = trial[i], float(value[i]), gradient[i]
    path.done = gain < 1e-6 or path.worse >= 6 or np.abs(path.u).max() > RUNAWAY


def _merge(live: list[Path]) -> None:
    """Stops a path that has come to where another one is."""
    for i, a in enumerate(live):
        for b in live[:i]:
            if not b.done and not a.done and np.abs((a.u - b.u) / (a.scale + b.scale)).max() < 1e-3:
                a.done = True


def distinct(paths: list[Path], n: int) -> list[Path]:
    """The paths with different local Gaussians, best first."""
    kept: list[Path] = []
    best = max((p.elbo for p in paths), default=-np.inf)
    for path in sorted(paths, key=lambda p: -p.elbo):
        q: Any = path.best
        if kept and not np.isfinite(path.elbo) and np.isfinite(best):
            break
        far = lambda k: (
            min(np.linalg.norm(k.best.whiten(q.mean[None])), np.linalg.norm(q.whiten(k.best.mean[None])))
            > DISTINCT * np.sqrt(q.dim)
        )
        if all(far(k) for k in kept):
            kept.append(path)
    return kept[:n]


def modes_solution(target: Target, found: list[Path], n_components: int) -> Solution:
    if not found:
        return Solution(None, "diverged", findings={"no_start": True})
    kept = distinct(found, n_components)
    why = "budget" if target.budget.spent else "converged"
    return Solution(kept[0].best, why, findings={"components": kept})
