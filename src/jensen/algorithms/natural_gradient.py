"""Natural-gradient variational inference for a full Gaussian, on fixed draws."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from .gaussian import Gaussian, standardised_draws
from .laplace import Laplace
from .modes import whitened_hessian
from .solver import AbstractSolver, Solution
from .target import BLOCK, Target

SHRINK, GROW = 0.25, 4.0  # bounds on an eigenvalue's change of the precision in one step
COARSE = 200  # draws from which half of them are used first
REACH = 3.0  # sd a mean may move in one step
FEWEST = 16  # draws
MANY, ITERATIONS = 300, 25  # dimensions above which only scales are; steps of each climb
HESSIAN = 1e-2  # sd: of its differences
DIAGONAL = 256, 64  # draws, and at least so many, by which only scales are learned


@dataclasses.dataclass
class NaturalGradient(AbstractSolver):
    """Full Gaussian by natural gradients of the ELBO on fixed, exactly standardised quasi-random draws.

    Definition: with u = m + R eps and g = grad log p(u): precision <- -E[sym(R^T g eps^T)] and mean <- mean + covariance
                E[g] (both in whitened coordinates; Bonnet's and Price's identities). Steps that lower the ELBO on the
                fixed draws are halved. The optimum is deterministic, so convergence is plain.
                Where evaluations are dear and dimensions many, the mean and one factor for each column of R.
    Cost:       max(64, 4 D) gradients a step, about ten steps; fewer where they are dear: 2 D (up to 300 dimensions), 64.
    Reference:  Khan and Rue (2023), section 3; Lin, Schmidt and Khan (2020).  [khan2023bayesian]
    """

    n_draws: int | None = None
    max_iterations: int = 60
    tolerance: float = 1e-3
    name: ClassVar = "natural-gradient"
    starts_from: ClassVar = Laplace
    about: ClassVar = "A Gaussian with all correlations, fitted by natural gradients on fixed draws."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or Laplace().solve(target, None, seed)
        if start.q is None:
            return start
        q, history, why = self.fit(target, start.q, seed)
        return Solution(q, why, history=history, findings=dict(start.findings))

    def fit(self, target: Target, q: Any, seed: int) -> tuple[Gaussian, list[float], str]:
        """`climb`, first on half the draws where there are many of them."""
        n = self.n_draws or max(BLOCK, 4 * target.dim)
        if self.n_draws is None and target.pace.effort < 1:
            wide = target.dim > MANY
            n = min(n, target.fewer(*DIAGONAL) if wide else max(target.fewer(BLOCK, FEWEST), 2 * target.dim))
            if wide:
                return self.scaled(target, q, standardised_draws(n, target.dim, seed))
        elif n > COARSE:
            q = self.climb(target, q, standardised_draws(n // 2, target.dim, seed), 20 * self.tolerance)[0]
        return self.climb(target, q, standardised_draws(n, target.dim, seed), self.tolerance)

    def scaled(self, target: Target, q: Gaussian, eps: np.ndarray) -> tuple[Gaussian, list[float], str]:
        """Mean and scales; what is between coordinates by two Hessians, at opposite draws; mean and scales again."""
        q = self.climb(target, q, eps, 20 * self.tolerance, ITERATIONS)[0]
        if target.budget.spent:
            return self.climb(target, q, eps, self.tolerance)
        curved = [whitened_hessian(target, q.apply(e[None])[0], q.root, HESSIAN) for e in (eps[0], -eps[0])]
        bent = _step(q, np.zeros(q.dim), -np.mean(curved, 0), 1.0)
        tried = [self.climb(target, start, eps, 5 * self.tolerance, ITERATIONS) for start in (bent, q)]
        return max(tried, key=lambda t: t[1][-1])

    def climb(
        self, target: Target, q: Gaussian, eps: Float[np.ndarray, "S D"], tolerance: float, most: int | None = None
    ) -> tuple[Gaussian, list[float], str]:
        """(the Gaussian with the highest ELBO on these draws, the ELBO of each accepted step, how it ended)."""
        elbo, mean_step, curvature = _moments(target, q, eps)
        history, size, stalls = [elbo], 1.0, 0
        for _ in range(most or self.max_iterations):
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
    """ELBO on the draws, E[R^T g], and -E[sym(R^T g eps^T)], the expected precision, whitened: of few draws its diagonal."""
    value, g = target(q.apply(eps))
    if not np.isfinite(value).all():
        ok = np.isfinite(value)
        if ok.mean() < 0.5:
            return -np.inf, None, None
        # where the density is zero or undefined: as bad as the worst of the others, twice over
        spread = np.ptp(value[ok]) + 10.0
        value = np.where(ok, value, value[ok].min() - spread)
    pulled, elbo = q.pull(g), float(value.mean() + q.entropy())
    if len(eps) < 2 * q.dim:  # too few for what stands off the diagonal
        return elbo, pulled.mean(0), -(pulled * eps).mean(0)
    curvature = -(pulled.T @ eps) / len(eps)
    return elbo, pulled.mean(0), (curvature + curvature.T) / 2


def _step(q: Gaussian, mean_step: Any, curvature: Any, size: float) -> Gaussian:
    if mean_step is None:  # undefined at too many draws: narrower
        return Gaussian(q.mean, q.root * 0.5)
    if curvature.ndim == 1:
        return _step_of_scales(q, mean_step, curvature, size)
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


def _step_of_scales(q: Gaussian, mean_step: np.ndarray, curvature: np.ndarray, size: float) -> Gaussian:
    values = np.clip(1 - size + size * curvature, SHRINK, GROW)
    move = mean_step / values * size
    move *= min(1.0, REACH / max(np.linalg.norm(move) / np.sqrt(q.dim), 1e-300))
    return Gaussian(q.apply(move[None])[0], q.root / np.sqrt(values))


def _moved(old: Gaussian, new: Gaussian) -> float:
    """Largest change: of a mean in sd, of an sd in relative terms."""
    shift = np.abs(new.mean - old.mean) / old.sd
    return float(max(shift.max(), np.abs(np.log(new.sd / old.sd)).max()))
