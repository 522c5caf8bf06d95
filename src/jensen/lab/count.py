"""How often a step evaluates the log density: counted in its traced program, so that it is right for any estimator.

A model whose density passes through a marker primitive is traced once. `vmap` gives the marker's output an axis a cell
and `scan` repeats it, so the evaluations are the marked elements of the program.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive
from jax.interpreters import ad, batching

from ..batch import Batch
from ..gradients.base import Bound, Parts, draw_noise
from ..gradients.plans import AbstractPlan
from ..models.base import AbstractModel
from ..objectives.base import AbstractObjective

_marker = Primitive("jensen_evaluation")
_marker.def_impl(lambda x: x)
_marker.def_abstract_eval(lambda x: x)
batching.primitive_batchers[_marker] = lambda args, dims: (_marker.bind(args[0]), dims[0])
ad.primitive_jvps[_marker] = lambda primals, tangents: (_marker.bind(primals[0]), tangents[0])


class Counted(AbstractModel):
    """The same model; whatever evaluates its density is marked once."""

    inner: AbstractModel

    @property
    def facts(self):
        return self.inner.facts

    @property
    def plated(self):
        return self.inner.plated

    @property
    def latents(self):
        return self.inner.latents

    def log_density(self, z, x):
        return _marker.bind(jnp.asarray(self.inner.log_density(z, x)))

    def log_likelihood(self, z, x):
        return _marker.bind(jnp.asarray(getattr(self.inner, "log_likelihood")(z, x)))  # noqa: B009 - some models have it

    def log_factors(self, z, x):
        (sites, first), *rest = self.inner.log_factors(z, x)
        return [(sites, _marker.bind(jnp.asarray(first))), *rest]

    def constrain(self, z):
        return self.inner.constrain(z)

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)


def evaluations(parts: Parts, objective: AbstractObjective, plan: AbstractPlan, batch: Batch, n_samples: int) -> int:
    """Log-density evaluations in one step: of one row where latents are local, of the whole batch where they are global.

    Reverse passes are not counted, nor a second trace of the same terms that the compiler shares.
    Raises:  whatever the estimator raises when traced.
    """
    model = Counted(parts.model)

    def terms(key: Any, family: Any, estimator: Any) -> Any:
        bound = Bound.make(model, family, objective, batch)
        noise = draw_noise(key, parts, plan, batch, n_samples)
        return estimator.terms(noise, bound, estimator.init(bound))

    family, estimator = parts.family, parts.estimator
    arrays, static = eqx.partition((family, estimator), eqx.is_array)
    traced = jax.make_jaxpr(lambda key, a: jax.tree.leaves(terms(key, *eqx.combine(a, static))))(jr.key(0), arrays)
    return _count(traced.jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive is _marker:
            total += int(np.prod(equation.outvars[0].aval.shape, dtype=int))  # pyright: ignore
        inner = [_count(sub) for value in equation.params.values() for sub in _jaxprs(value)]
        if inner:
            branches = equation.primitive.name == "cond"
            total += (max if branches else sum)(inner) * int(equation.params.get("length", 1) or 1)
    return total


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [j for v in value for j in _jaxprs(v)] if isinstance(value, (tuple, list)) else []
