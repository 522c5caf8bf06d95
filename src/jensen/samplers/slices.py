"""Slice sampling along lines: chains that need neither a gradient nor a smooth edge."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from ..algorithms.budget import OutOfBudget
from ..algorithms.gaussian import Gaussian, Mixture, safe_cholesky
from ..algorithms.importance import Weighted, corrected, n_weighed, proposal_of, weigh
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import BLOCK, Target
from .chains import agreement, enough, longest_run

N_CHAINS = 2 * BLOCK
STEPS_OUT, SHRINKS = 24, 60
AXES = 0.25  # share of the moves along one coordinate
LEAST = 32  # sweeps
SWEEPS = 160  # at most, times the dimension and 4: what a walk along lines needs in a round body
COMPONENTS = (1, 6, 16, 40)


@dataclasses.dataclass
class Ensemble:
    """Chains on their way. `width` of the first bracket, in units of a direction."""

    u: Float[np.ndarray, "C D"]
    value: Float[np.ndarray, " C"]
    rng: Any
    width: float = 1.0

    def sweep(self, target: Target, wild: bool = False, tune: bool = False) -> None:
        """One move of each chain; wild: along directions of all sizes, for chains that began in few places.

        Definition: half of the chains move along combinations of where the others are, so that scales and correlations
                    need not be known; a bracket on the line steps out to where the density is below the slice, and shrinks.
        Cost:       about 6 evaluations a chain.   Reference: Neal (2003); Karamanis and Beutler (2021).
        """
        half = len(self.u) // 2
        for mine, others in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
            way = self._directions(self.u[others], half, wild)
            self.u[mine], self.value[mine], grown, shrunk = self._move(target, self.u[mine], self.value[mine], way)
            if tune and not wild:
                self.width = float(np.clip(self.width * 2 * (grown + 0.5) / (grown + shrunk + 1), 1e-3, 1e3))

    def _directions(self, x: np.ndarray, n: int, wild: bool) -> np.ndarray:
        rng, d = self.rng, x.shape[1]
        way = rng.standard_normal((n, len(x))) @ (x - x.mean(0)) / np.sqrt(len(x))
        axis = np.eye(d)[rng.integers(d, size=n)] * x.std(0)
        way = np.where(rng.random((n, 1)) < AXES, axis, way)
        if wild:
            free = rng.standard_normal((n, d)) * (1 + np.abs(x).max(0)) * 10.0 ** rng.uniform(-8, 0.5, (n, 1))
            way = np.where(rng.random((n, 1)) < 0.7, free, way)
        return way

    def _move(self, target, u, value, way):
        rng, n = self.rng, len(u)
        level = value - rng.exponential(size=n)
        low = -self.width * rng.random(n)
        high = low + self.width
        grown = shrunk = 0
        room = rng.integers(
            STEPS_OUT + 1, size=n
        )  # shared at random between the ends: else the moves are not reversible
        for end, sign, most in ((low, -1, room), (high, 1, STEPS_OUT - room)):
            on = np.flatnonzero(most > 0)
            left = most.copy()
            while len(on):
                above = target.value(u[on] + end[on, None] * way[on]) > level[on]
                on = on[above & (left[on] > 0)]
                end[on] += sign * self.width
                left[on] -= 1
                grown += len(on)
        new, there = u.copy(), value.copy()
        on = np.arange(n)
        for _ in range(SHRINKS):
            t = rng.uniform(low[on], high[on])
            z = u[on] + t[:, None] * way[on]
            found = target.value(z)
            good = found > level[on]
            new[on[good]], there[on[good]] = z[good], found[good]
            on, t = on[~good], t[~good]
            low[on], high[on] = np.where(t < 0, t, low[on]), np.where(t < 0, high[on], t)
            shrunk += len(on)
            if not len(on):
                break
        return new, there, grown, shrunk


def settled(target: Target, u: np.ndarray, value: np.ndarray, rng: Any, rounds: int = 10) -> Ensemble:
    """An ensemble begun at these points (as many of them as there are, the best first), run until it no longer climbs."""
    order = np.argsort(-value)[:N_CHAINS]
    order = np.resize(order, N_CHAINS)
    ensemble = Ensemble(u[order].copy(), value[order].copy(), rng)
    for _ in range(12):
        ensemble.sweep(target, wild=True)
    before = -np.inf
    for _ in range(rounds):
        for _ in range(8):
            ensemble.sweep(target, tune=True)
        now, spread = np.mean(ensemble.value), np.std(ensemble.value)
        if now - before < 0.25 * spread + 1e-9:
            break
        before = now
    return ensemble


@dataclasses.dataclass
class Slices(AbstractSolver):
    """Chains that stay within the support of a density that ends at curved walls, and a mixture fitted to their draws.

    Definition: `Ensemble` begun at draws of the density, until the standard errors suffice; q is the mixture of Gaussians
                that weighs best of a few fitted to the draws by EM. weigh_it: few draws, and q's weighed ones are the result:
                what q draws beyond a wall weighs nothing.
    Cost:       about 800 evaluations a sweep of 128 chains.   Reference: Neal (2003).
    """

    inside: Float[np.ndarray, "n D"]
    most: int | None = None
    weigh_it: bool = False

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        rng = np.random.default_rng([seed, 33])
        u, most = self.inside[-N_CHAINS:], self.most or SWEEPS * (4 + target.dim)
        ensemble, kept, log_p, checks = Ensemble(u.copy(), target.value(u), rng), [], [], {}
        looked = LEAST
        for _ in range(2 * LEAST if self.weigh_it else most):
            try:
                ensemble.sweep(target, tune=len(kept) < LEAST // 2)
            except OutOfBudget:
                break
            kept.append(ensemble.u.copy())
            log_p.append(ensemble.value.copy())
            if len(kept) >= looked and not self.weigh_it:
                looked = int(1.5 * looked)
                checks = agreement(np.stack(kept[LEAST // 2 :]), target.names)
                if enough(checks, target) or target.budget.spent:
                    break
        if len(kept) < LEAST:
            raise OutOfBudget
        x, values = np.stack(kept[LEAST // 2 :]), np.concatenate(log_p[LEAST // 2 :])
        moved = np.any(np.diff(x, axis=0) != 0, axis=2)
        checks = agreement(x, target.names) | {
            "stuck": int(longest_run(~moved)), "accepted": float(moved.mean()), "diverged": 0.0, "iterations": len(x),
        }  # fmt: skip
        draws = x.reshape(-1, target.dim)
        q, weighed = best_mixture(target, draws, seed)
        why = "budget" if target.budget.spent else "converged" if self.weigh_it or enough(checks, target) else "stalled"
        solution = Solution(
            q, why, draws, values, corrected="chains", findings={"chains": checks, "shape": x.shape[:2]}
        )
        return corrected(weighed, solution, len(weighed.u) // 2, seed) if self.weigh_it else solution


def best_mixture(target: Target, draws: Float[np.ndarray, "n D"], seed: int) -> tuple[Any, Weighted]:
    """The mixture whose draws weigh most evenly, and these."""
    some = draws[np.linspace(0, len(draws) - 1, min(len(draws), 4096)).astype(int)]
    best: Any = None
    for k in COMPONENTS:
        if best is not None and (k * 5 * target.dim > len(some) or target.budget.spent):
            break
        q = fitted_mixture(some, k, np.random.default_rng([seed, 34]))
        weighed = weigh(target, proposal_of(q), n_weighed(target), seed + k)
        if best is None or weighed.ess > best[1].ess:
            best = q, weighed
        if best[1].ess > 0.8:
            break
    return best


def fitted_mixture(x: Float[np.ndarray, "n D"], k: int, rng: Any, n_iterations: int = 30) -> Gaussian | Mixture:
    """k Gaussians by EM, begun at draws far from each other."""
    q = Gaussian(x.mean(0), safe_cholesky(np.atleast_2d(np.cov(x.T))))
    if k == 1:
        return q
    z = q.whiten(x)
    at = [int(rng.integers(len(z)))]
    for _ in range(k - 1):
        away = np.min([((z - z[i]) ** 2).sum(1) for i in at], 0)
        at.append(int(rng.choice(len(z), p=away / away.sum())))
    log_r = -0.5 * k ** (2 / z.shape[1]) * np.stack([((z - z[i]) ** 2).sum(1) for i in at])
    for _ in range(n_iterations):
        r = np.exp(log_r - logsumexp(log_r, 0))
        mass = r.sum(1) + 1e-12
        means = r @ z / mass[:, None]
        parts = []
        for j in range(k):
            e = z - means[j]
            parts.append(
                Gaussian(means[j], safe_cholesky((r[j][:, None] * e).T @ e / mass[j] + 1e-6 * np.eye(z.shape[1])))
            )
        log_r = np.stack([np.log(m / len(z)) + p.log_prob(z) for m, p in zip(mass, parts, strict=True)])
    root = np.diag(q.root) if q.diagonal else q.root
    return Mixture(tuple(Gaussian(q.apply(p.mean[None])[0], root @ p.root) for p in parts), mass / mass.sum())
