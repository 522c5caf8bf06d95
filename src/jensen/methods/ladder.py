"""The ladder, as a method: what `fit` takes where nothing is chosen."""

import dataclasses
from typing import ClassVar

from ..algorithms.method import AbstractMethod, single_vector
from ..algorithms.solver import AbstractSolver


@dataclasses.dataclass(frozen=True)
class Ladder(AbstractMethod):
    """Gaussians from every mode found, importance weights, chains, a conditional Gaussian and its chains, the No-U-Turn
    sampler: each only where the one before does not stand up to the checks (`fit.trail`)."""

    name: ClassVar = "auto"
    about: ClassVar = "Climbs from cheap methods to costly ones, and stops at the first that passes every check."
    takes: ClassVar = AbstractSolver.takes
    why_not: ClassVar = AbstractSolver.why_not

    def problems(self, task):
        return single_vector(task)

    def run(self, task):
        return task.solved(None)
