"""Pathfinder: the best of the Gaussians that a quasi-Newton ascent passes."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from .ascent import Trajectory, ascend
from .gaussian import Gaussian, Mixture
from .importance import corrected, proposal_of, weigh
from .low_rank import DENSE, LowRankGaussian
from .mixture import NEGLIGIBLE, _apart
from .solver import AbstractSolver, Solution
from .starts import coordinate_scale, first_points
from .target import BLOCK, Target

TOP = 4  # positions of a path for which H's diagonal is also scaled
SCALES = (3.0, 9.0, 30.0)
FULL = 60  # pairs
MOST_NUMBERS = 10**7  # in the draws that are weighed
MOST = 64  # positions of one path that are looked at
FINAL = 4 * BLOCK  # draws for the ELBO of a path's best: fresh ones, for the best of many noisy ones looks too good


@dataclasses.dataclass
class Pathfinder(AbstractSolver):
    """Single- and multi-path Pathfinder: local Gaussians along L-BFGS paths, the one with the highest ELBO of each.

    Definition: at each position u of a path: N(u + H g, H), H the L-BFGS inverse Hessian; the highest ELBO along each
                path is kept. Several paths: q = sum_k w_k N_k, w_k by the ELBOs, and draws of it resampled by
                Pareto-smoothed weights. H's diagonal, which rules in directions that the path has not been in, is also
                tried larger at the best positions, and kept if the ELBO is higher. One path: q is its Gaussian, and
                there is no resampling.
    Arguments:  memory: pairs in H; by default 10 above 600 dimensions, 60 below.   n_elbo: draws for an ELBO along
                the path.   n_draws: weighed at the end (fewer above 1,000 dimensions).
    Cost:       `n_elbo` values for each of at most 64 positions a path; `n_draws` at the end.
    Reference:  Zhang, Carpenter, Gelman and Vehtari (2022), algorithms 1 to 5.  [zhang2022pathfinder]
    """

    n_paths: int = 4
    memory: int | None = None
    n_elbo: int = 16
    n_draws: int = 8192
    max_iterations: int = 400
    name: ClassVar = "pathfinder"
    about: ClassVar = "The best of the Gaussians that quick climbs to the mode pass on their way."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        u = first_points(target, start, seed, self.n_paths)
        unit = coordinate_scale(target, u, seed) if target.dim > DENSE else None
        most = self.max_iterations if target.dim <= 1000 else min(self.max_iterations, 200)  # a path is kept whole
        paths = ascend(target, u, self._memory(target.dim), most, 1e-6, lambda: target.budget.spent, unit)
        found = [self.best(target, path, seed + i) for i, path in enumerate(paths)]
        fits = sorted((f for f in found if np.isfinite(f[0])), key=lambda f: -f[0])
        if not fits:
            return Solution(None, "diverged", findings={"no_start": not paths})
        why = "budget" if target.budget.spent else max(paths, key=lambda p: p.value[-1]).why
        fits = [f for f in fits if f[0] > fits[0][0] - NEGLIGIBLE]
        return self.assembled(target, fits, why, seed)

    def best(self, target: Target, path: Trajectory, seed: int) -> tuple[float, Gaussian | LowRankGaussian]:
        """(ELBO, Gaussian) of a path's best position."""
        rng, last = np.random.default_rng([seed, 32]), len(path.x) - 1
        eps = rng.standard_normal((self.n_elbo, target.dim))
        steps = np.unique(np.linspace(min(1, last), last, MOST).astype(int))
        local = lambda at, scale=1.0: path.local(at, self._memory(target.dim), scale)
        found = self._tried(target, ((at, 1.0) for at in steps), local, eps)
        top = sorted(found, key=lambda f: -f[0])[:TOP]
        found = top + self._tried(target, [(at, c) for _, (at, _) in top for c in SCALES], local, eps)
        q = local(*max(found, key=lambda f: f[0])[1])
        fresh = float(elbos(target, [q], rng.standard_normal((FINAL, target.dim)))[0])
        return fresh, q.dense() if q.dim <= DENSE else q

    def _tried(self, target: Target, candidates, local, eps: np.ndarray) -> list[tuple[float, tuple[int, float]]]:
        """(ELBO, (position, scale)) of each candidate, in blocks of draws."""
        out, candidates = [], list(candidates)
        per_call = max(1, BLOCK // self.n_elbo)
        for i in range(0, len(candidates), per_call):
            if target.budget.spent and out:
                break
            some = candidates[i : i + per_call]
            out += zip(elbos(target, [local(*c) for c in some], eps).tolist(), some, strict=True)
        return out

    def _memory(self, dim: int) -> int:
        """Low rank only where a matrix is too large."""
        return self.memory or (FULL if dim <= DENSE else 10)

    def assembled(self, target: Target, fits: list, why: str, seed: int) -> Solution:
        values = np.array([f[0] for f in fits])
        distinct: list = []
        for _, q in fits:
            if all(_apart(q, other) for other in distinct):
                distinct.append(q)
        findings = {"fitted": fits, "n_components": len(distinct)}
        if self.n_paths == 1 or target.budget.spent:
            return Solution(fits[0][1], why, history=list(values), findings=findings)
        weights = np.exp(values - values.max())
        q = Mixture(tuple(f[1] for f in fits), weights / weights.sum()) if len(fits) > 1 else fits[0][1]
        solution = Solution(q, why, history=list(values), findings=findings)
        n = min(self.n_draws, max(1024, MOST_NUMBERS // target.dim))
        weighed = weigh(target, proposal_of(q), n, seed)
        if not np.isfinite(weighed.evidence[0]):
            return dataclasses.replace(solution, why="diverged")
        return corrected(weighed, solution, n // 2, seed)


def elbos(
    target: Target, candidates: list[LowRankGaussian], eps: Float[np.ndarray, "S D"]
) -> Float[np.ndarray, " candidates"]:
    """ELBO of each on the same draws; -inf where half of them, or more, have no density.

    A draw without density counts as worse than the worst of the others.
    """
    u = np.concatenate([q.apply(eps) for q in candidates])
    ok = np.asarray(np.isfinite(u).all(1))
    value = np.where(ok, target(np.where(ok[:, None], u, 0.0))[0], -np.inf).reshape(len(candidates), -1)
    square = 0.5 * (eps**2).sum(1) - 0.5 * eps.shape[1]  # draw by draw: for the right q there is no noise left
    return np.array([_mean(v + square) + q.entropy() for v, q in zip(value, candidates, strict=True)])


def _mean(terms: np.ndarray) -> float:
    known = terms[np.isfinite(terms)]
    if 2 * len(known) <= len(terms):
        return -np.inf
    worse = known.min() - np.ptp(known) - 10.0
    return float(known.sum() + (len(terms) - len(known)) * worse) / len(terms)
