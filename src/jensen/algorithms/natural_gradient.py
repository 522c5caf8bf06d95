"""Natural-gradient variational inference for a full Gaussian, on fixed draws."""

from typing import Any

import numpy as np
from jaxtyping import Float

from .gaussian import Gaussian, standardised_draws
from .laplace import Laplace
from .solver import AbstractSolver, Solution
from .target import BLOCK, Target

SHRINK, GROW = 0.25, 4.0  # bounds on an eigenvalue's change of the precision in one step
COARSE = 200  # draws from which half of them are used first
REACH = 3.0  # sd a mean may move in one step


class NaturalGradient(AbstractSolver):
    """Full Gaussian by natural gradients of the ELBO on fixed, exactly standardised quasi-random draws.

    Definition: with u = m + R eps and g = grad log p(u): precision <- -E[sym(R^T g eps^T)] and mean <- mean + covariance
                E[g] (both in whitened coordinates; Bonnet's and Price's identities). Steps that lower the ELBO on the
                fixed draws are halved. The optimum is deterministic, so convergence is plain.
    Cost:       max(64, 4 D) gradients a step, about ten steps.
    Reference:  Khan and Rue (2023), section 3; Lin, Schmidt and Khan (2020).  [khan2023bayesian]
    """

    name, starts_from = "natural-gradient", "laplace"

    def __init__(self, n_draws: int | None = None, max_iterations: int = 60, tolerance: float = 1e-3):
        self.n_draws, self.max_iterations, self.tolerance = n_draws, max_iterations, tolerance

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or Laplace().solve(target, None, seed)
        if start.q is None:
            return start
        q, history, why = self.fit(target, start.q, seed)
        return Solution(q, why, history=history, findings=dict(start.findings))

    def fit(self, target: Target, q: Any, seed: int) -> tuple[Gaussian, list[float], str]:
        """`climb`, first on half the draws where there are many of them."""
        n = self.n_draws or max(BLOCK, 4 * target.dim)
        if n > COARSE:
            q = self.climb(target, q, standardised_draws(n // 2, target.dim, seed), 20 * self.tolerance)[0]
        return self.climb(target, q, standardised_draws(n, target.dim, seed), self.tolerance)

    def climb(
        self, target: Target, q: Gaussian, eps: Float[np.ndarray, "S D"], tolerance: float
    ) -> tuple[Gaussian, list[float], str]:
        """(the Gaussian with the highest ELBO on these draws, the ELBO of each accepted step, how it ended)."""
        elbo, mean_step, curvature = _moments(target, q, eps)
        history, size, stalls = [elbo], 1.0, 0
        for _ in range(self.max_iterations):
            if target.budget.spent:
                return q, history, "budget"
            trial = _step(q, mean_step, curvature, size)
            new = _moments(target, trial, eps)
            gain = new[0] - elbo
            if not np.isfinite(elbo) and np.isfinite(new[0]):
                gain = np.inf
            if gain > -1e-9 * (1 + abs(elbo)) and np.isfinite(new[0]):
                moved = _moved(q, trial)
                q, (elbo, mean_step, curvature) = trial, new
                history.append(elbo)
                stalls = stalls + 1 if gain < tolerance * 0.1 and moved < 0.02 else 0
                if moved < tolerance or stalls >= 3:
                    return q, history, "converged"
                size = min(1.0, 2 * size)
            else:
                size /= 2
                if size < 1e-4:
                    return q, history, "stalled"
        return q, history, "budget"


def _moments(target: Target, q: Gaussian, eps: np.ndarray):
    """ELBO on the draws, E[R^T g], and -E[sym(R^T g eps^T)], the expected precision, whitened."""
    value, g = target(q.apply(eps))
    if not np.isfinite(value).all():
        ok = np.isfinite(value)
        if ok.mean() < 0.5:
            return -np.inf, None, None
        # where the density is zero or undefined: as bad as the worst of the others, twice over
        spread = np.ptp(value[ok]) + 10.0
        value = np.where(ok, value, value[ok].min() - spread)
    pulled = q.pull(g)
    curvature = -(pulled.T @ eps) / len(eps)
    return float(value.mean() + q.entropy()), pulled.mean(0), (curvature + curvature.T) / 2


def _step(q: Gaussian, mean_step: Any, curvature: Any, size: float) -> Gaussian:
    if mean_step is None:  # undefined at too many draws: narrower
        return Gaussian(q.mean, q.root * 0.5)
    values, vectors = np.linalg.eigh((1 - size) * np.eye(q.dim) + size * curvature)
    values = np.clip(values, SHRINK, GROW)
    move = vectors @ ((vectors.T @ mean_step) / values) * size
    length = np.linalg.norm(move) / np.sqrt(q.dim)
    move *= min(1.0, REACH / max(length, 1e-300))
    root = (vectors / np.sqrt(values)) @ vectors.T  # symmetric root of the inverse
    full = q.root @ root if not q.diagonal else q.root[:, None] * root
    upper: Any = np.linalg.qr(full.T, mode="r")
    lower = upper.T
    lower = lower * np.where(np.diagonal(lower) < 0, -1.0, 1.0)
    return Gaussian(q.mean + (q.root @ move if not q.diagonal else q.root * move), lower)


def _moved(old: Gaussian, new: Gaussian) -> float:
    """Largest change: of a mean in sd, of an sd in relative terms."""
    shift = np.abs(new.mean - old.mean) / old.sd
    return float(max(shift.max(), np.abs(np.log(new.sd / old.sd)).max()))
