"""Solvers: algorithms that are not iterated by the loop. Each is a rung of the ladder, and a `method` by name."""

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from ..errors import OptionError, check_count, explain
from .budget import OutOfBudget
from .gaussian import Gaussian, Mixture
from .low_rank import DENSE
from .method import AbstractMethod, single_vector
from .target import Target

if TYPE_CHECKING:
    from ..methods.task import Task


@dataclasses.dataclass
class Solution:
    """What a solver found.

    q:        the approximation with a density: a proposal for importance weights.
    draws:    (n, D) that stand for the posterior better than q does, or None: q itself is the answer.
    log_p:    log density at `draws`.   log_q: log q there, if q lives in other coordinates.
    corrected: how the draws came from q: "none", "importance" or "chains".
    why:      how it ended: "converged" | "budget" | "stalled" | "diverged" | "patience" | "interrupted".
    evidence: (estimate of the log of the density's integral, standard error), or None.
    findings: what the verdict should know: numbers and sentences by name.
    """

    q: Gaussian | Mixture | Any
    why: str = "converged"
    draws: Float[np.ndarray, "n D"] | None = None
    log_p: Float[np.ndarray, " n"] | None = None
    log_q: Float[np.ndarray, " n"] | None = None
    corrected: str = "none"
    evidence: tuple[float, float] | None = None
    history: list[float] = dataclasses.field(default_factory=list)
    findings: dict[str, Any] = dataclasses.field(default_factory=dict)


class AbstractSolver(AbstractMethod):
    """A method on one latent vector of real numbers that ends by itself: a rung of the ladder, or all there is.

    starts_from: the solver it climbs from when no solution is given.   Fields: counts, positive numbers and switches.
    Example:     a solver of one's own in `docs/methods.md`.
    """

    starts_from: ClassVar["type[AbstractSolver] | None"] = None
    takes: ClassVar = frozenset({"n_draws", "accuracy"})
    why_not: ClassVar = "these belong to stochastic gradients"

    def __post_init__(self) -> None:
        for name, value in self.options().items():
            if isinstance(value, float):
                if not 0 < value < math.inf:
                    asked, because = f"`{type(self).__name__}({name}={value!r})`", "it is a size"
                    raise OptionError(explain(asked, "it is no positive number", because, f"{name}=0.5, say"))
            elif value is not None and not isinstance(value, bool | np.ndarray):
                check_count(name, value, type(self).__name__)

    def problems(self, task: "Task"):
        return single_vector(task)

    def run(self, task: "Task") -> Any:
        return task.solved(self)

    def solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        """From the solution of the rung below (None: from nothing). Broken off where the budget is overdrawn: then that
        solution, or without one the highest point that was seen, with a scale of 1."""
        try:
            return self._solve(target, start, seed)
        except OutOfBudget:
            if start is not None and start.q is not None:
                return dataclasses.replace(start, why="budget")
            u = target.highest[1]
            return Solution(
                None if u is None else Gaussian(u, np.eye(u.size) if u.size <= DENSE else np.ones(u.size)), "budget"
            )

    def may_take(self, target: Target) -> int | None:
        """Evaluations it may take without a budget; None where that is not known before, or little."""
        return None

    @abc.abstractmethod
    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        """May raise OutOfBudget."""
