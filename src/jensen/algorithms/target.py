"""A model as the solvers see it: a log density over flat vectors, in double precision, many at once, counted."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..batch import Batch
from ..compiled import compiled
from ..facts import Fact
from ..function import Static
from ..models.base import AbstractModel
from ..tree import Layout
from .budget import Budget
from .reported import Reported

BLOCK = 64  # points evaluated by one call of the one compiled program
DIFFERENCE = 1e-5  # step of central differences for a density without derivatives, relative to 1 + |u|


def flat_log_density(model: AbstractModel, layout: Layout, batch: Batch, u: Float[Array, " D"]) -> Float[Array, ""]:
    """log p(u, data) of one flat vector."""
    return model.log_density(layout.unravel(u), batch)


class Program:
    """The static half of a target as one dictionary key, hashed once: calls are many and short."""

    def __init__(self, static: Static, layout: Layout, treedef: Any):
        self.key = static, layout, treedef
        self._hash = hash(self.key)

    def log_density(self, leaves: tuple[Array, ...]) -> Callable:
        static, layout, treedef = self.key
        arrays, batch = jax.tree.unflatten(treedef, leaves)
        model = eqx.combine(arrays, static.tree)
        return lambda u: flat_log_density(model, layout, batch, u)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self.key == other.key)


@compiled(0)
def _value_and_grad(program: Program, leaves: tuple[Array, ...], u: Float[Array, "B D"]):
    return jax.vmap(jax.value_and_grad(program.log_density(leaves)))(u)


@compiled(0)
def _value(program: Program, leaves: tuple[Array, ...], u: Float[Array, "B D"]):
    return jax.vmap(program.log_density(leaves))(u)


def in_double(tree: PyTree) -> PyTree:
    """Inexact arrays in the widest float that is on, the rest as it is."""
    wide = jnp.result_type(float)
    return jax.tree.map(lambda a: jnp.asarray(a, wide) if _is_real(a) else a, tree)


def in_default(tree: PyTree) -> PyTree:
    """Arrays in the precision that is now in force."""
    number = lambda a: eqx.is_array(a) and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a)) if number(a) else a, tree)


def _is_real(a: Any) -> bool:
    return eqx.is_array(a) and jnp.issubdtype(a.dtype, jnp.floating)


class Target:
    """log p(u, data) for flat u in R^D and its gradient, on the host, in float64.

    Definition: u is the model's latent (unconstrained) in one vector. Where the density or its gradient is not finite
                the value is -inf and the gradient 0: a region of no mass, counted in `n_not_a_number` where it was NaN.
    Cost:       one compiled program of a fixed shape, whatever the solver. Without DIFFERENTIABLE the gradient is a
                central difference: 2 D values.
    Must be made and used under `jax.enable_x64(True)`.
    """

    def __init__(self, model: AbstractModel, rows: PyTree = None, budget: Budget | None = None):
        self.layout = Layout(model.latents)
        self.dim, self.names = self.layout.size, self.layout.names()
        self.model, self.batch = in_double(model), Batch(in_double(rows), None)
        self.smooth = Fact.DIFFERENTIABLE in model.facts
        arrays, static = eqx.partition(self.model, eqx.is_array)
        leaves, treedef = jax.tree.flatten((arrays, self.batch))
        self.leaves, self.program = tuple(leaves), Program(Static(static), self.layout, treedef)
        self.reported = Reported(self.model, self.layout)
        self.budget = budget if budget is not None else Budget.unlimited()
        self.evaluations, self.seconds, self.n_not_a_number = 0, 0.0, 0

    def __call__(self, u: Float[np.ndarray, "n D"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n D"]]:
        """(values, gradients)."""
        began = time.perf_counter()
        value, gradient = self._evaluated(np.asarray(u, np.float64))
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(1))
        if bad.any():
            self.n_not_a_number += int(np.isnan(value).sum())
            value, gradient = np.where(bad, -np.inf, value), np.where(bad[:, None], 0.0, gradient)
        self._spent(len(u), began)
        return value, gradient

    def value(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        """Values alone; by the same program where there is a gradient: one more compilation costs more than it saves."""
        if self.smooth:
            return self(u)[0]
        began = time.perf_counter()
        value = self._values(np.asarray(u, np.float64))
        self.n_not_a_number += int(np.isnan(value).sum())
        self._spent(len(u), began)
        return np.where(np.isfinite(value), value, -np.inf)

    def _spent(self, n: int, began: float) -> None:
        self.evaluations += n
        self.seconds += time.perf_counter() - began
        self.budget.spend(n)

    def _evaluated(self, u):
        if self.smooth:
            blocks = [_value_and_grad(self.program, self.leaves, b) for b in _blocks(u)]
            value = np.concatenate([np.asarray(v) for v, _ in blocks])[: len(u)]
            return value, np.concatenate([np.asarray(g) for _, g in blocks])[: len(u)]
        n, d = u.shape
        step = DIFFERENCE * (1 + np.abs(u))
        around = np.repeat(u[:, None], 2 * d + 1, 1)
        around[:, 1 : d + 1] += step[:, :, None] * np.eye(d)
        around[:, d + 1 :] -= step[:, :, None] * np.eye(d)
        value = self._values(around.reshape(-1, d)).reshape(n, 2 * d + 1)
        return value[:, 0], (value[:, 1 : d + 1] - value[:, d + 1 :]) / (2 * step)

    def _values(self, u):
        parts = [_value(self.program, self.leaves, b) for b in _blocks(u)]
        return np.concatenate([np.asarray(v) for v in parts])[: len(u)]


def _blocks(u: np.ndarray):
    """Blocks of one shape, the last padded with its first point."""
    for at in range(0, len(u), BLOCK):
        block = u[at : at + BLOCK]
        if len(block) < BLOCK:
            block = np.concatenate([block, np.repeat(block[:1], BLOCK - len(block), 0)])
        yield block
