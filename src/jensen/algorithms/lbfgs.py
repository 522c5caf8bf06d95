"""The mode by L-BFGS, and the Gaussian of its inverse-Hessian estimate."""

import dataclasses
from typing import ClassVar

from .ascent import ascend
from .low_rank import DENSE
from .solver import AbstractSolver, Solution
from .starts import coordinate_scale, first_points
from .target import Target


@dataclasses.dataclass
class LBFGS(AbstractSolver):
    """The highest point reached by L-BFGS from several starts, and the Gaussian of its inverse-Hessian estimate there.

    Definition: N(u*, H), H = diagonal + low rank; dense for D <= 600. What `Laplace` is, in dimensions too large for it.
    Cost:       about one gradient an iteration and a start.
    Reference:  Liu and Nocedal (1989); Gilbert and Lemarechal (1989) for the diagonal.  [liu1989lbfgs]
    """

    n_starts: int = 4
    memory: int = 10
    max_iterations: int = 1000
    name: ClassVar = "lbfgs"
    about: ClassVar = (
        "The Gaussian at the highest point that quick climbs reach, as wide as the steps there tell: for many "
        "dimensions."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        u = first_points(target, start, seed, self.n_starts)
        stop = lambda: target.budget.spent
        unit = coordinate_scale(target, u, seed) if target.dim > DENSE else None
        paths = ascend(target, u, self.memory, self.max_iterations, stop=stop, unit=unit, keep=False)
        if not paths:
            return Solution(None, "diverged", findings={"no_start": True})
        best = max(paths, key=lambda p: p.value[-1])
        q = best.local(len(best.x) - 1, self.memory)
        return Solution(q.dense() if q.dim <= DENSE else q, best.why, history=list(best.value))
