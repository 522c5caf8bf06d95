"""Batch and match: a full Gaussian whose score is matched to the posterior's on batches of draws."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from .gaussian import Gaussian
from .laplace import Laplace
from .solver import AbstractSolver, Solution
from .starts import dense_start
from .target import BLOCK, Target

EXACT = 1e-6  # of the mean squared difference of the scores, per coordinate: q is the posterior
SETTLED = 0.02  # change over a window: of a mean in sd, of an sd in relative terms
WINDOW = 20  # steps
FALLING = 0.7  # of the divergence, from the first to the second half of a window: it still falls
FAR = 3.0  # sd of the new q, per root of D


@dataclasses.dataclass
class BatchAndMatch(AbstractSolver):
    """Batch and match (BaM): closed-form steps that lower a score-based divergence, with a proximal term.

    Definition: q' minimises E_batch |grad log q' - grad log p|^2_{cov(q')} + (2 / lambda_t) KL(q_t | q'). In q_t's whitened
                coordinates, with means and covariances of the batch's draws (zbar, C) and scores (gbar, G):
                U = lambda G + lambda / (1 + lambda) gbar gbar^T,  V = I + lambda C + lambda / (1 + lambda) zbar zbar^T,
                S U S + S = V,  mean = lambda / (1 + lambda) (S gbar + zbar).
                lambda_t = batch size * D / (t + 1), the paper's; from where the divergence falls no more, 2 / (steps since):
                an average over batches.
    Arguments:  batch: draws a step; by default 64 or 2 D, at most 512.
    Cost:       `batch` gradients a step, 3 (a Gaussian) to 300 steps; D^3 operations each.
    Reference:  Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), eq. 9 to 12.  [cai2024batch]
    """

    batch: int | None = None
    max_iterations: int = 300
    name: ClassVar = "batch-and-match"
    starts_from: ClassVar = Laplace
    about: ClassVar = "A Gaussian whose slopes are matched to those of the posterior, one batch of draws after another."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        q = dense_start(target, start, seed)
        if q is None:
            return Solution(None, "diverged")
        rng = np.random.default_rng([seed, 36])
        batch = self.batch or min(max(BLOCK, 2 * target.dim), 8 * BLOCK)
        rate = Rate(batch * target.dim)
        update = lambda eps, g, history: matched(eps, g, rate(history))
        q, history, why = iterate(target, q, rng, batch, self.max_iterations, update)
        return Solution(q, why, history=history)


@dataclasses.dataclass
class Rate:
    """lambda_t, from the history of the divergence."""

    first: float
    plateau: int | None = None

    def __call__(self, history: list[float]) -> float:
        t, half = len(history), WINDOW // 2
        if (
            self.plateau is None
            and t >= WINDOW
            and np.mean(history[-half:]) > FALLING * np.mean(history[-WINDOW:-half])
        ):
            self.plateau = t
        paper = self.first / (t + 1)
        return paper if self.plateau is None else min(paper, 2 / (t - self.plateau + 1))


def iterate(target: Target, q: Gaussian, rng, batch: int, most: int, update) -> tuple[Gaussian, list[float], str]:
    """Steps of `update(eps, scores, history) -> (mean, root)`, all whitened, until q rests; the history is the divergence.

    Scores that are not finite are left out; where they are the half, q is narrowed.
    """
    history: list[float] = []
    mark, failed = q, 0
    for t in range(most):
        if target.budget.spent:
            return q, history, "budget"
        eps = rng.standard_normal((batch, q.dim))
        value, g = target(q.apply(eps))
        ok = np.isfinite(value)
        if ok.mean() <= 0.5:
            q, failed = Gaussian(q.mean, q.root / 2), failed + 1
            if failed > 40:
                return q, history, "diverged"
            continue
        eps, g = eps[ok], q.pull(g[ok])
        history.append(float(((g + eps) ** 2).mean()))
        if history[-1] < EXACT:
            return q, history, "converged"
        q = moved(q, *update(eps, g, history))
        if (t + 1) % WINDOW == 0:
            if change(mark, q) < SETTLED:
                return q, history, "converged"
            mark = q
    return q, history, "stalled"


def moved(q: Gaussian, mean: Float[np.ndarray, " D"], root: Float[np.ndarray, "D D"]) -> Gaussian:
    """N(mean, root root^T) of q's whitened coordinates, in q's own; q itself where rounding has spoilt the step."""
    full = q.root @ root
    if not (np.isfinite(full).all() and np.isfinite(mean).all()):
        return q
    lower = np.asarray(np.linalg.qr(full.T, mode="r")).T
    lower = lower * np.where(np.diagonal(lower) < 0, -1.0, 1.0)
    return Gaussian(q.mean + q.root @ mean, lower) if (np.diagonal(lower) > 0).all() else q


def matched(eps: Float[np.ndarray, "B D"], g: Float[np.ndarray, "B D"], rate: float) -> tuple[np.ndarray, np.ndarray]:
    """One step from N(0, I): (mean, a root of the covariance).

    Where the mean would move further than `FAR` sd, the means are left out of U and V: scores that are large only because
    the posterior is far away would flatten q along the way there, and once flat it hardly moves.
    """
    mean_z, mean_g, share = eps.mean(0), g.mean(0), rate / (1 + rate)
    z, s = (eps - mean_z) * np.sqrt(rate / len(eps)), (g - mean_g) * np.sqrt(rate / len(g))
    root = _riccati(s, z)
    pulled = root.T @ mean_g
    if pulled @ pulled <= FAR**2 * eps.shape[1]:
        beside = np.sqrt(share)
        root = _riccati(np.concatenate([s, beside * mean_g[None]]), np.concatenate([z, beside * mean_z[None]]))
        pulled = root.T @ mean_g
    return share * (root @ pulled + mean_z), root


def _riccati(s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A root of S: S (s^T s) S + S = V = I + z^T z. With V = L L^T: S = L X L^T, X (L^T s^T s L) X + X = I."""
    lower = np.linalg.cholesky(np.eye(z.shape[1]) + z.T @ z)
    _, singular, vectors = np.linalg.svd(s @ lower, full_matrices=True)
    m = np.zeros(z.shape[1])
    m[: singular.size] = singular**2
    return lower @ (vectors.T * np.sqrt(2 / (1 + np.sqrt(1 + 4 * m))))


def change(old: Gaussian, new: Gaussian) -> float:
    """Largest: of a mean in sd, of an sd in relative terms."""
    shift = np.abs(new.mean - old.mean) / np.minimum(old.sd, new.sd)
    return float(max(shift.max(), np.abs(np.log(new.sd / old.sd)).max()))
