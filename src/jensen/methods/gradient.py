"""Stochastic gradients of a bound: any family, objective, gradient and plan; in turn on q and the model; of a flow."""

import dataclasses
from typing import Any, ClassVar

import jax
import optax

from .. import families, gradients, objectives
from ..algorithms import gradient_vi, variational_em
from ..algorithms.method import single_vector
from ..algorithms.natural_gradient import NaturalGradient
from ..arrays import lifted
from ..families.base import AbstractFamily
from ..fit import defaults
from ..fit.auto import solve
from ..gradients import plans
from ..gradients.base import AbstractEstimator, Parts
from ..judge import check
from ..lab.choose import Subject, choose
from ..objectives.base import AbstractObjective
from .task import said_twice
from .trained import AXES, AbstractTrained, Made, no_m_step, trained

FLOW_STEPS = 3_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientVI(AbstractTrained):
    """Gradient VI: stochastic gradients of an objective, in q and in the model's own parameters together.

    Arguments are those of `fit` by the same names, of which it is the object: `fit(model, family="full-rank")` is
    `fit(model, method=GradientVI(family="full-rank"))`.
    """

    family: AbstractFamily | str | None = None
    objective: AbstractObjective | str | None = None
    gradient: AbstractEstimator | str | None = None
    plan: plans.AbstractPlan | str | None = None
    optimizer: optax.GradientTransformation | float | None = None
    n_samples: int | None = None
    n_steps: int | None = None
    batch_size: int | None = None
    name: ClassVar = "gradient"
    about: ClassVar = "Fits q by stochastic gradients of the objective, step by step."
    takes: ClassVar = AbstractTrained.takes | AXES

    def asked(self, task):
        own = self._own()
        said_twice([name for name in own if name in task.given])
        return {**own, **task.given}

    def _own(self) -> dict[str, Any]:
        mine = {f.name for f in dataclasses.fields(GradientVI)}
        return {name: value for name, value in self.options().items() if name in mine and value is not None}

    def descent(self, *of_gradient_vi: Any) -> gradient_vi.GradientVI:
        """The algorithm, from the arguments of `algorithms.GradientVI`."""
        return gradient_vi.GradientVI(*of_gradient_vi)

    def made(self, at):
        objective = (
            defaults.named("objective", at.axes["objective"], defaults.exported(objectives)) or objectives.ELBO()
        )
        plan = defaults.named("plan", at.axes["plan"], defaults.exported(plans)) or plans.IID()
        gradient, why = at.axes["gradient"], ""
        if isinstance(gradient, str) and gradient.lower() == "auto":
            subject = Subject(at.model, at.family, objective, at.rows, at.batch_size, at.first, at.seed)
            composition, why = choose(subject, plan, at.n_samples)
        else:
            gradient = defaults.named("gradient", gradient, defaults.exported(gradients))
            composition = defaults.complete(
                at.model, at.family, objective, gradient, plan, at.n_samples, at.minibatched
            )
        check(composition)
        estimator = defaults.bind_gradient(composition.gradient, at.model, at.rows, at.seed)
        parts = Parts(at.model, at.family, estimator)
        descent = self.descent(parts, objective, plan, at.optimiser, composition.n_samples)
        return Made(descent, composition, self._said(why))

    def _said(self, chosen: str) -> dict[str, Any]:
        """What the fit's options tell beside the parts."""
        return {"gradient_chosen": chosen} if chosen else {}


@dataclasses.dataclass(frozen=True)
class VariationalEM(GradientVI):
    """Variational EM: `algorithms.VariationalEM`. e_steps, m_steps: of the optimiser on q, then on the model, in turn;
    the others as for `GradientVI`."""

    e_steps: int = 5
    m_steps: int = 5
    name: ClassVar = "variational-em"
    about: ClassVar = "The bound is raised in q alone, then in the model's parameters alone, in turn."

    def problems(self, task):
        return no_m_step(task.read()[0])

    def descent(self, *of_gradient_vi):
        return variational_em.VariationalEM(*of_gradient_vi, e_steps=self.e_steps, m_steps=self.m_steps)

    def _said(self, chosen):
        return super()._said(chosen) | {"steps": f"VariationalEM(e_steps={self.e_steps}, m_steps={self.m_steps})"}


@dataclasses.dataclass(frozen=True)
class Flow(AbstractTrained):
    """A real-NVP flow around the Gaussian that natural gradients find, by stochastic gradients of the ELBO."""

    name: ClassVar = "flow"
    about: ClassVar = "A Gaussian bent by a neural network (a normalising flow), fitted by stochastic gradients."
    why_not: ClassVar = "the method chooses a flow, and these choose something else"

    def problems(self, task):
        return single_vector(task)

    def run(self, task):
        model, rows = task.read(double=True)
        base: Any = solve(model, rows, NaturalGradient(), task.seed, task.budget, task.n_draws, False, None).family
        with jax.enable_x64(True):
            loc, cholesky = jax.device_get((base.layout.unravel(base.loc), base.cholesky()))
        family = families.RealNVP(base.layout.shape_tree(), loc=loc, cholesky=cholesky)
        asked = {"n_steps": FLOW_STEPS} | task.given | {"family": family}
        return trained(self, task, asked, model.lifted(), lifted(rows))

    def made(self, at):
        return GradientVI().made(at)
