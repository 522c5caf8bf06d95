"""Importance sampling from a fitted q with heavier tails: the cheapest correction, and what the verdict is made of."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ..diagnostics.psis import importance_ess, psis
from .budget import OutOfBudget
from .gaussian import Gaussian, Mixture, defensive
from .natural_gradient import NaturalGradient
from .solver import AbstractSolver, Solution
from .target import BLOCK, Target

N_PROPOSALS, FEWEST = 8192, 512
WEIGHING = 0.5  # of what is left of the budget
AT_LEAST = 2  # draws, if the budget is overdrawn
HOPELESS = 0.02  # effective share of the draws
BOUNDED = 2.0  # times the mean weight: if the largest of all is below, there is no tail
NUMBERS = 5 * 10**6  # held at once: above, there are fewer draws


def n_proposals(dim: int) -> int:
    """8,192, and fewer above 600 dimensions, where memory counts."""
    return max(FEWEST, min(N_PROPOSALS, NUMBERS // dim))


def n_weighed(target: Target) -> int:
    """As many, and fewer where evaluations are dear."""
    return target.fewer(n_proposals(target.dim), FEWEST)


@dataclasses.dataclass
class Weighted:
    """Draws of a proposal with their smoothed, normalised log-weights.

    ess: share of the draws, of smoothed or raw weights, whichever is less.
    evidence: log of the mean weight, with its standard error.
    """

    u: Float[np.ndarray, "n D"]
    log_p: Float[np.ndarray, " n"]
    log_q: Float[np.ndarray, " n"]
    log_weights: Float[np.ndarray, " n"]
    khat: float
    ess: float
    evidence: tuple[float, float]
    undefined: float  # share of the draws where the density is NaN

    @property
    def weights(self) -> Float[np.ndarray, " n"]:
        return np.exp(self.log_weights)

    @property
    def mean(self) -> Float[np.ndarray, " D"]:
        return self.weights @ self.u

    @property
    def sd(self) -> Float[np.ndarray, " D"]:
        return np.sqrt(self.weights @ (self.u - self.mean) ** 2)

    def resample(self, n: int, seed: int, power: float = 1.0) -> np.ndarray:
        """Indices of n draws in random order, by systematic resampling; power < 1 keeps more of the tails."""
        rng = np.random.default_rng([seed, 11])
        w = np.exp(power * self.log_weights)
        edges = np.cumsum(w / w.sum())
        at = np.searchsorted(edges, (np.arange(n) + rng.random()) / n)
        return rng.permutation(np.minimum(at, len(w) - 1))


def weigh(target: Target, proposal: Any, n: int, seed: int) -> Weighted:
    """n draws of a proposal (`sample`, `log_prob`), weighed; an eighth of them where these say that there is no hope, and
    as many as half of what is left of the budget pays for."""
    eighth = target.affordable(n // 8, WEIGHING)
    first = _weigh(target, proposal, eighth, [seed, 5])
    if first.ess < HOPELESS and first.khat > 0.7:
        return first
    more = target.affordable(n - n // 8, WEIGHING, least=0)
    if eighth < n // 8 or not more:
        return first
    return _joined(first, _weigh(target, proposal, more, [seed, 6]))


def weigh_more(target: Target, proposal: Any, weighed: Weighted, n: int, seed: int) -> Weighted:
    """With n more draws of the same proposal, or as many as the budget pays for."""
    more = target.affordable(n, WEIGHING, least=0)
    return _joined(weighed, _weigh(target, proposal, more, [seed, 12])) if more else weighed


def _joined(a: Weighted, b: Weighted) -> Weighted:
    join = lambda name: np.concatenate([getattr(a, name), getattr(b, name)])
    undefined = np.average([a.undefined, b.undefined], weights=[len(a.u), len(b.u)])
    return weighted(join("u"), join("log_p"), join("log_q"), float(undefined))


def _weigh(target: Target, proposal: Any, n: int, seed: list[int]) -> Weighted:
    u = proposal.sample(np.random.default_rng(seed), n)
    u = u[np.isfinite(u).all(1)]
    before = target.n_not_a_number
    log_p, u = evaluated(target, u)
    log_q = proposal.log_prob(u)
    return weighted(u, log_p, log_q, (target.n_not_a_number - before) / max(len(u), 1))


def evaluated(target: Target, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log p, the points it was evaluated at): without those that the budget no longer pays for."""
    if not target.budget.finite:
        return target.value(u), u
    done: list[np.ndarray] = []
    for at in range(0, len(u), BLOCK):
        try:
            done.append(target.value(u[at : at + BLOCK]))
        except OutOfBudget:
            break
    if not done:  # a verdict is made from something
        value = target.raw(u[:AT_LEAST])[0]
        done.append(np.where(np.isfinite(value), value, -np.inf))
    log_p = np.concatenate(done)
    return log_p, u[: len(log_p)]


def weighted(u: np.ndarray, log_p: np.ndarray, log_q: np.ndarray, undefined: float = 0.0) -> Weighted:
    log_w = log_p - log_q
    smoothed = psis(log_w)
    top = np.max(log_w, initial=-math.inf)
    if not math.isfinite(top):
        return Weighted(u, log_p, log_q, smoothed.log_weights, math.inf, 0.0, (-math.inf, math.inf), undefined)
    ratio = np.exp(log_w - top)
    evidence = float(top + math.log(ratio.mean())), float(ratio.std() / ratio.mean() / math.sqrt(len(u)))
    # a shape fitted to weights that are all about alike says nothing, however long the tail of their tiny differences
    khat = min(float(smoothed.khat), 0.0) if ratio.max() < BOUNDED * ratio.mean() else float(smoothed.khat)
    # a few draws in a mode that q misses are smoothed away as a tail: the raw weights see them
    ess = min(importance_ess(smoothed.log_weights), float(ratio.sum() ** 2 / (ratio**2).sum())) / len(u)
    return Weighted(u, log_p, log_q, smoothed.log_weights, khat, ess, evidence, undefined)


def proposal_of(q: Any) -> Any:
    """What is drawn from to correct q: q with a share of heavy tails (a q of another kind knows its own)."""
    if isinstance(q, (Gaussian, Mixture)):
        return defensive(q)
    return q.proposal()


def corrected(weighed: Weighted, start: Solution, n: int, seed: int, q: Any = None) -> Solution:
    """The solution whose draws are resampled by the weights."""
    index = weighed.resample(n, seed)
    return dataclasses.replace(
        start, q=start.q if q is None else q, draws=weighed.u[index], log_p=weighed.log_p[index],
        corrected="importance", evidence=weighed.evidence, findings={**start.findings, "weighted": weighed},
    )  # fmt: skip


@dataclasses.dataclass
class Importance(AbstractSolver):
    """Importance resampling with Pareto-smoothed weights, from q with a quarter of t5 tails.

    Cost:       8,192 evaluations; 512 and more where they are dear.
    Reference:  Vehtari et al. (2024); Owen and Zhou (2000) for the defensive mixture.  [vehtari2024psis]
    """

    n: int | None = None
    name: ClassVar = "importance"
    starts_from: ClassVar = NaturalGradient
    about: ClassVar = "Draws of a fitted Gaussian, resampled by how much the model prefers each."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or NaturalGradient().solve(target, None, seed)
        if start.q is None:
            return start
        n = self.n or n_weighed(target)
        return corrected(weigh(target, proposal_of(start.q), n, seed), start, n // 2, seed)
