"""A model given by its log density."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..function import Function
from ..program import Read, Traced, form
from ..tree import Layout, row_spec
from .base import AbstractModel, Batch
from .calls import described, explained, layout_of, must_depend, number, takes, wants_data


class LogDensity(AbstractModel):
    """A log density over an unconstrained latent.

    Definition: log p(z, x) = fn(z, x) [+ sum_i log_likelihood(z, x_i)], up to a constant.
    Arguments:  fn: `fn(z)` or `fn(z, data)` -> scalar, in nats; a JAX function. Arguments with defaults are fn's own
                (`lambda z, k=k: ...`). An Equinox module is trained: its arrays are parameters of the model (point
                estimates).
                shape: shape tuple, whole number, or tree of them, of z.
                log_likelihood: `(z, row) -> scalar`: the part that is a sum over rows; then `fn(z)` is the rest (the
                prior), and minibatches are possible.
                local: True if every row has its own z: then `fn(z, row)` is one row's log joint.
                differentiable: False for a function JAX cannot differentiate: only score-function gradients then.
    Raises:     ModelError if fn does not return one real number, cannot be traced (`BlackBox` is for those), takes other
                arguments or draws random numbers, or there are no latents.
    Example:    >>> LogDensity(lambda z: -0.5 * (z**2).sum(), (3,))
    """

    fn: Callable
    log_likelihood: Callable | None
    layout: Layout = eqx.field(static=True)
    plated: bool = eqx.field(static=True)
    differentiable: bool = eqx.field(static=True)
    takes_data: bool = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable,
        shape: PyTree,
        *,
        log_likelihood: Callable | None = None,
        local: bool = False,
        differentiable: bool = True,
    ):
        if local and log_likelihood is not None:
            raise ModelError(
                explain(
                    "`LogDensity(local=True, log_likelihood=...)`",
                    "with a latent for each row, fn already is one row's log joint",
                    "the sum over rows is taken outside",
                    "fn(z, row) = log p(z) + log p(row | z), and no log_likelihood",
                )
            )
        asked, data = "`LogDensity(fn, shape)`", ("row",) if local else () if log_likelihood is not None else ("data",)
        self.takes_data = takes(fn, asked, "z", *data, optional=0 if local else len(data)) == 2
        if log_likelihood is not None:
            takes(log_likelihood, "`LogDensity(log_likelihood=...)`", "z", "row")
        self.layout = layout_of(shape, "LogDensity")
        trained = lambda f: (
            isinstance(f, eqx.Module) and not hasattr(f, "__wrapped__")
        )  # not eqx.filter_jit of a function
        wrap: Any = lambda f: f if f is None or trained(f) else Function(f)
        self.fn, self.log_likelihood = wrap(fn), wrap(log_likelihood)
        self.plated, self.differentiable = local, differentiable

    @property
    def facts(self):
        own = {Fact.EXACT_LOG_WEIGHT}
        if self.differentiable:
            own |= {Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE}
        if self.plated or self.log_likelihood is not None:
            own |= {Fact.MINIBATCH}
        return frozenset(own)

    @property
    def wants_data(self) -> bool | None:
        """Must there be data? None: there may be."""
        return True if self.plated or self.log_likelihood is not None else wants_data(self.fn, self.takes_data)

    @property
    def latents(self):
        return self.layout.spec()

    def log_density(self, z, x):
        if self.plated:
            return self._number(self.fn, z, x)
        rows, weight = (x.rows, x.weight) if isinstance(x, Batch) else (x, None)
        value = self._number(self.fn, z, *((rows,) if self.takes_data and rows is not None else ()))
        if self.log_likelihood is None:
            return value
        terms = self.log_likelihood_per_row(z, rows)
        return value + (terms if weight is None else weight * terms).sum()

    def log_likelihood_per_row(self, z: PyTree, rows: PyTree) -> Array:
        """(N,): what PSIS-LOO and held-out scores need."""
        return jax.vmap(lambda row: self._number(self.log_likelihood, z, row))(rows)

    def _number(self, fn: Any, z: PyTree, *data: PyTree) -> Array:
        asked = f"the {'log density' if fn is self.fn else 'log-likelihood of one row'} `{_name_of(fn)}`"
        given = ", ".join(f"{n} = {described(a)}" for n, a in zip(("z", "data"), (z, *data), strict=False))
        with explained(asked, fn, given):
            value = fn(z, *data)
        found = number(value, asked, differentiable=self.differentiable)
        if fn is self.fn and self.log_likelihood is None:
            must_depend(value, z, asked)
        return found

    def constrain(self, z):
        return z

    def twin(self):
        return self._with(lambda f: f.twin() if isinstance(f, Function) else f)

    def traced(self, xs):
        if not any(isinstance(f, Function) and f.foreign for f in (self.fn, self.log_likelihood)):
            return self
        z, rows = self.latents, [x.rows if isinstance(x, Batch) else x for x in xs]
        forms = {self.fn: [(z, r) if self.plated or (self.takes_data and r is not None) else (z,) for r in rows]}
        if self.log_likelihood is not None:
            forms[self.log_likelihood] = [(z, row_spec(r)) for r in rows]

        def of(f: Any) -> Any:
            if not isinstance(f, Function):
                return f
            each = list({form(a): a for a in forms[f]}.values())
            return Traced.of(lambda f: functools.partial(self._number, f), f, each, f.read or Read())

        return self._with(of)

    def _with(self, change: Callable) -> "LogDensity":
        parts = lambda m: (m.fn, m.log_likelihood)
        return eqx.tree_at(parts, self, tuple(map(change, parts(self))), is_leaf=lambda f: f is None or f is self.fn)


def _name_of(fn: Any) -> str:
    return type(fn).__name__ if isinstance(fn, eqx.Module) else repr(fn)
