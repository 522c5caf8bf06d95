"""Gaussian score matching: the nearest Gaussian whose score is right at each draw."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from .batch_and_match import change, iterate
from .gaussian import Gaussian, safe_cholesky
from .laplace import Laplace
from .solver import AbstractSolver, Solution
from .starts import dense_start
from .target import BLOCK, Target

AGREED = 0.1  # the averages of the first half of the iterates and of all of them: of a mean in sd, of an sd


@dataclasses.dataclass
class GaussianScoreMatching(AbstractSolver):
    """Gaussian score matching (GSM): project q onto the Gaussians with the posterior's score at a draw, and average.

    Definition: q' = argmin KL(q | q') subject to grad log q'(u) = grad log p(u), in closed form for each u of a batch drawn
                from q; means and covariances of the batch's q' are averaged. There is no step size; for a posterior that
                is not Gaussian the iterates do not settle, and those of the last half are averaged.
    Cost:       64 gradients a step, at most 300 steps.
    Reference:  Modi, Gower, Margossian, Yao, Blei and Saul (2023), algorithm 1.  [modi2023gsm]
    """

    batch: int = BLOCK
    max_iterations: int = 300
    name: ClassVar = "score-matching"
    starts_from: ClassVar = Laplace
    about: ClassVar = "A Gaussian whose slopes are matched to those of the posterior at each draw, and averaged."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        q = dense_start(target, start, seed)
        if q is None:
            return Solution(None, "diverged")
        rng, half = np.random.default_rng([seed, 37]), self.max_iterations // 2
        update = lambda eps, g, _: projected(eps, g)
        q, history, why = iterate(target, q, rng, self.batch, half, update)
        if why == "stalled":
            q, more, why = self.averaged(target, q, rng, half, update)
            history += more
        return Solution(q, why, history=history)

    def averaged(self, target: Target, q: Gaussian, rng, most: int, update) -> tuple[Gaussian, list[float], str]:
        """The average of the iterates: means, and covariances. Converged: their two halves agree."""
        history: list[float] = []
        found: list[Gaussian] = []
        why = "stalled"
        while len(found) < most and why == "stalled":
            q, more, why = iterate(target, q, rng, self.batch, 1, update)
            history += more
            found.append(q)
        if why == "converged":
            return q, history, why
        whole, first = _mean(found), _mean(found[: len(found) // 2] or found)
        return whole, history, "converged" if why == "stalled" and change(first, whole) < AGREED else why


def _mean(found: list[Gaussian]) -> Gaussian:
    mean = np.mean([q.mean for q in found], 0)
    return Gaussian(mean, safe_cholesky(np.mean([q.root @ q.root.T for q in found], 0)))


def projected(eps: Float[np.ndarray, "B D"], g: Float[np.ndarray, "B D"]) -> tuple[np.ndarray, np.ndarray]:
    """One step from N(0, I): (mean, root of the covariance). Eq. 7 to 9 with mean 0 and covariance I.

    With a = eps + g: mean' = (a + eps (g . a) / (1 + rho - eps . g)) / (1 + rho), rho (1 + rho) = |g|^2 + (eps . g)^2, and
    covariance' = I + eps eps^T - (mean' - eps)(mean' - eps)^T.
    """
    cross = (eps * g).sum(1)
    rho = 0.5 * (np.sqrt(1 + 4 * ((g**2).sum(1) + cross**2)) - 1)
    a = eps + g
    means = (a + eps * ((g * a).sum(1) / (1 + rho - cross))[:, None]) / (1 + rho)[:, None]
    gap, n = means - eps, len(eps)
    mean, spread = means.mean(0), (eps.T @ eps - gap.T @ gap) / n
    return mean, safe_cholesky(np.eye(eps.shape[1]) + (spread + spread.T) / 2)
