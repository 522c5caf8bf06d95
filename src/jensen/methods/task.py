"""What `fit` was asked to do, and what a method may have done for it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ..algorithms.budget import Budget
from ..algorithms.contrastive_divergence import ContrastiveDivergence
from ..algorithms.method import single_vector
from ..algorithms.solver import AbstractSolver
from ..data.load import load_table
from ..errors import IncompatibleComposition, ModelError, OptionError, explain
from ..facts import Fact
from ..fit.auto import obstacle, solve
from ..fit.defaults import batch_size_for
from ..fit.energy import fit_energy
from ..fit.rows import as_rows
from ..models.base import AbstractModel
from ..models.coerce import as_model

N_DRAWS = 4096


@dataclasses.dataclass
class Task:
    """A model, data, and what was said beside.

    given:  the options of `fit` that were set, by name, but for those that are fields here.
    again:  the same call of `fit`, for other data.
    """

    model: Any
    data: Any
    seed: int
    budget: Budget
    progress: bool | None
    given: dict[str, Any]
    again: Callable[..., Any]
    began: float = dataclasses.field(default_factory=time.perf_counter)
    known: tuple[AbstractModel, Any] | None = None

    @property
    def n_draws(self) -> int:
        """What the verdict is made from."""
        return self.given.get("n_draws", N_DRAWS)

    def read(self, double: bool = False) -> tuple[AbstractModel, Any]:
        """(the model, its rows). double: a model that is code is traced in double precision, if it has not been read yet."""
        if self.known is None:
            if isinstance(self.data, str | Path):
                self.data = load_table(Path(self.data))
            code = not isinstance(self.model, AbstractModel)
            with jax.enable_x64(True) if double and code else contextlib.nullcontext():  # the precision it will run in
                model, rows = as_model(self.model, self.data)
            rows = as_rows(rows, divisible=Fact.MINIBATCH in model.facts)
            if model.plated and rows is None:
                asked, because = "`fit` of a model with a latent for each row", "there are no rows"
                raise ModelError(explain(asked, "data is None", because, "fit(model, data)"))
            self.known = model.twin(), rows
        return self.known

    @property
    def batch_size(self) -> int | None:
        """Rows a step; None: all."""
        return batch_size_for(*self.read(), self.given.get("batch_size"))

    @property
    def obstacle(self) -> str | None:
        """Why the ladder and its solvers cannot take this model, in words; None if they can."""
        return obstacle(*self.read(double=True), self.batch_size)

    def solved(self, solver: AbstractSolver | None) -> Any:
        """The fit by a solver, or by the whole ladder, weighed, judged and packed."""
        for problem in single_vector(self):  # of a method that does not say so itself
            raise IncompatibleComposition(explain("a solver on this model", *problem))
        model, rows = self.read(double=True)
        out = solve(
            model, rows, solver, self.seed, self.budget, self.n_draws, self.progress, self.given.get("accuracy")
        )
        return self.finished(out)

    def trained(self, algorithm: ContrastiveDivergence) -> Any:
        """The machine trained by this algorithm, and judged."""
        shared = {"seed": self.seed, "budget": self.budget, "progress": self.progress}
        return fit_energy(self.model, self.data, method=algorithm, **shared, **self.given)

    def finished(self, out: Any) -> Any:
        """With the seconds since `fit` was called, and the way to fit again."""
        out.seconds, out.refit = time.perf_counter() - self.began, self.again
        return out


def said_twice(names: list[str]) -> None:
    """Raises: OptionError for options that the method has and `fit` was given too."""
    if names:
        wrong, because = f"{names} are options of the method too, and set there", "one of the two would be dropped"
        raise OptionError(explain(f"fit(method=..., {names[0]}=...)", wrong, because, "each option in one place"))
