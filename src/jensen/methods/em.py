"""Expectation maximisation, as a method."""

import dataclasses
from typing import ClassVar

from ..algorithms.method import AbstractMethod
from ..fit.em import EMFit, em
from .task import said_twice

AS_IN_EM = {"n_steps": "n_iter", "n_restarts": "n_starts"}  # `fit`'s name of an option -> `jensen.em`'s
SHARED = frozenset({"batch_size", "checkpoint", "checkpoint_seconds", "on_chunk"})


@dataclasses.dataclass(frozen=True)
class EM(AbstractMethod):
    """Expectation maximisation of a model with an E-step of its own.  Arguments: as for `jensen.em`."""

    n_starts: int | None = None
    init: str = "both"
    n_iter: int = 1000
    tol: float = 1e-6
    batch_size: int | None = None
    n_epochs: int = 20
    decay: float = 0.7
    delay: float = 2.0
    double: bool | None = None
    name: ClassVar = "em"
    about: ClassVar = (
        "Expectation maximisation: latents are filled in by their means given the rows, then parameters fitted."
    )
    fits: ClassVar = "em"
    takes: ClassVar = SHARED | frozenset(AS_IN_EM)
    why_not: ClassVar = "expectation maximisation has its own E-step: there is no q to choose"
    by_steps: ClassVar = True

    def run(self, task) -> EMFit:
        usual, given = EM().options(), {AS_IN_EM.get(n, n): v for n, v in task.given.items()}
        said_twice([n for n, v in self.options().items() if n in given and v != usual[n]])
        options = self.options() | given
        return em(task.model, task.data, seed=task.seed, budget=task.budget, progress=task.progress, **options)
