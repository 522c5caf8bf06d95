"""The conditional-Gaussian rung: learn a warp from draws, draw from it with heavy tails, weigh, and learn again."""

import dataclasses
from typing import ClassVar

import numpy as np

from ..algorithms.importance import Weighted, corrected, n_weighed, proposal_of, weigh
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import Target
from .chains import HMC
from .warp import learn, structure_of

TAILS = 0.7  # power of the weights by which draws are kept for the next round: the tails are what must be learned
SETTLED = 0.02  # nats by which the evidence may still change between rounds


@dataclasses.dataclass
class ConditionalGaussian(AbstractSolver):
    """q(u) = N(u_A) N(u_B | mu(u_A), exp(2 s(u_A))): adaptive importance sampling with a learned conditional Gaussian.

    Definition: which coordinates set the scale or bend the mean of which is read off draws (`Warp`); the map is fitted by
                maximum likelihood; draws of it with t tails, weighed and resampled, fit the next one. Funnels and bananas
                become Gaussian in a few rounds.
    Cost:       8,192 evaluations a round, at most `n_rounds`.
    Reference:  Cappe, Douc, Guillin, Marin and Robert (2008), adaptive importance sampling; Parno and Marzouk (2018),
                transport maps.  [cappe2008adaptive]
    """

    n_rounds: int = 8
    name: ClassVar = "conditional-gaussian"
    starts_from: ClassVar = HMC
    about: ClassVar = (
        "A Gaussian in which mean and width of each parameter may depend on those before it, which follows "
        "hierarchies. Its draws are resampled by how much the model prefers each."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or HMC().solve(target, None, seed)
        if start.q is None or start.draws is None:
            return start
        draws, best, warped, evidence, structure = start.draws, None, None, np.inf, None
        for i in range(self.n_rounds):
            candidate = learn(draws, structure)
            if candidate is None:
                break
            weighed = weigh(target, proposal_of(candidate), n_weighed(target), seed + 100 * (i + 1))
            if best is None or quality(weighed) >= quality(best) or i < 2:
                best, warped = weighed, candidate
            structure = structure_of(candidate) if i > 0 else None
            settled = abs(weighed.evidence[0] - evidence) < SETTLED
            if target.budget.spent or not np.isfinite(weighed.evidence[0]):
                break
            if settled and weighed.khat < 0.5 and weighed.ess > 0.6:
                break
            evidence = weighed.evidence[0]
            draws = weighed.u[weighed.resample(4096, seed + i, TAILS)]
        if best is None or warped is None:
            return dataclasses.replace(start, findings={**start.findings, "no_warp": True})
        return corrected(best, start, n_weighed(target) // 2, seed, warped)


def quality(weighed: Weighted) -> float:
    return weighed.ess - max(weighed.khat - 0.3, 0.0)
