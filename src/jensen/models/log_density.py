"""A model given by its log density."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..function import Function
from ..tree import Layout, row_spec
from .base import AbstractModel, Batch


class LogDensity(AbstractModel):
    """A log density over an unconstrained latent.

    Definition: log p(z, x) = fn(z, x) [+ sum_i log_likelihood(z, x_i)], up to a constant.
    Arguments:  fn: `fn(z)` or `fn(z, data)` -> scalar, in nats; a JAX function. An Equinox module is trained: its
                arrays are parameters of the model (point estimates).
                shape: shape tuple, or tree of shapes, of z.
                log_likelihood: `(z, row) -> scalar`: the part that is a sum over rows; then `fn(z)` is the rest (the
                prior), and minibatches are possible.
                local: True if every row has its own z: then `fn(z, row)` is one row's log joint.
                differentiable: False for a function JAX cannot differentiate: only score-function gradients then.
    Raises:     ModelError if fn does not return a scalar, or there are no latents.
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
        if not callable(fn):
            raise ModelError(
                explain("`LogDensity(fn, shape)`", f"fn is a {type(fn).__name__}", "it is called with z", "a function")
            )
        if local and log_likelihood is not None:
            raise ModelError(
                explain(
                    "`LogDensity(local=True, log_likelihood=...)`",
                    "with a latent for each row, fn already is one row's log joint",
                    "the sum over rows is taken outside",
                    "fn(z, row) = log p(z) + log p(row | z), and no log_likelihood",
                )
            )
        self.layout = Layout(shape)
        if self.layout.size == 0:
            raise ModelError(
                explain("`LogDensity`", "shape has no coordinates", "there is nothing to infer", "shape=(1,) or more")
            )
        wrap: Any = lambda f: f if f is None or isinstance(f, eqx.Module) else Function(f)
        self.fn, self.log_likelihood = wrap(fn), wrap(log_likelihood)
        self.plated, self.differentiable = local, differentiable
        self.takes_data = local or (log_likelihood is None and _n_arguments(fn) >= 2)

    @property
    def facts(self):
        own = {Fact.EXACT_LOG_WEIGHT}
        if self.differentiable:
            own |= {Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE}
        if self.plated or self.log_likelihood is not None:
            own |= {Fact.MINIBATCH}
        return frozenset(own)

    @property
    def latents(self):
        return self.layout.spec()

    def log_density(self, z, x):
        if self.plated:
            return _scalar(self.fn(z, x))
        rows, weight = (x.rows, x.weight) if isinstance(x, Batch) else (x, None)
        value = _scalar(self.fn(z, rows) if self.takes_data else self.fn(z))
        if self.log_likelihood is None:
            return value
        terms = self.log_likelihood_per_row(z, rows)
        return value + (terms if weight is None else weight * terms).sum()

    def log_likelihood_per_row(self, z: PyTree, rows: PyTree) -> Array:
        """(N,): what PSIS-LOO and held-out scores need."""
        fn: Any = self.log_likelihood
        return jax.vmap(lambda row: _scalar(fn(z, row)))(rows)

    def constrain(self, z):
        return z

    def twin(self):
        return self._with(lambda f: f.twin() if isinstance(f, Function) else f)

    def traced(self, xs):
        if not any(isinstance(f, Function) and f.foreign for f in (self.fn, self.log_likelihood)):
            return self
        rows = [x.rows if isinstance(x, Batch) else x for x in xs]
        z, whole = self.latents, self.plated or self.takes_data
        forms = [(z, r) if whole else (z,) for r in (rows if whole else rows[:1])]
        pairs = [(z, row_spec(r)) for r in rows] if self.log_likelihood is not None else []
        pairs = [p for i, p in enumerate(pairs) if p not in pairs[:i]]
        of = lambda f: f if f is None or isinstance(f, eqx.Module) else f.traced(pairs if f is self.log_likelihood else forms)
        return self._with(of)

    def _with(self, change: Callable) -> "LogDensity":
        parts = lambda m: (m.fn, m.log_likelihood)
        return eqx.tree_at(parts, self, tuple(map(change, parts(self))), is_leaf=lambda f: f is None or f is self.fn)


def _scalar(value: Array) -> Array:
    value = jnp.asarray(value)
    if value.shape != ():
        raise ModelError(
            explain(
                "a log density",
                f"it returned shape {value.shape}",
                "log p(z, x) of one latent is one number",
                "sum over the axes: `.sum()`",
            )
        )
    return value


def _n_arguments(fn: Callable) -> int:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
