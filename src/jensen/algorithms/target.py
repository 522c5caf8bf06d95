"""A model as the solvers see it: a log density over flat vectors, in double precision, many at once, counted."""

import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..arrays import lifted
from ..batch import Batch
from ..compiled import Recent, compiled
from ..facts import Fact
from ..function import Static
from ..models.base import AbstractModel
from ..program import open_ended
from ..tree import Layout
from .budget import Budget, OutOfBudget
from .pace import Pace
from .reported import Reported

BLOCK = 64  # points evaluated by one call of the one compiled program
FIRST, BEYOND = 1.0, 0.5  # of a density that may not end far out: |u_i| at first; and how much further it is looked at
COMPARABLE = 50.0  # nats a dimension below the highest: as far as that it is looked further
ACCURACY, ACCURACY_OF_DEAR = 0.015, 0.027
OF_SD = 4 / 3  # the relative error of an sd that goes with an accuracy, in that of a mean
DIFFERENCE = 1e-5  # step of central differences for a density without derivatives, relative to 1 + |u|


def flat_log_density(model: AbstractModel, layout: Layout, batch: Batch, u: Float[Array, " D"]) -> Float[Array, ""]:
    """log p(u, data) of one flat vector."""
    return model.log_density(layout.unravel(u), batch)


def in_turn(density: Callable, arrays: PyTree) -> Callable:
    """u -> density(arrays, u), of which `vmap` takes one point after the other, value and gradient together."""
    both = jax.custom_batching.sequential_vmap(jax.value_and_grad(density, argnums=1))

    @jax.custom_vjp
    def value(arrays: PyTree, u: Float[Array, " D"]) -> Float[Array, ""]:
        return both(arrays, u)[0]

    value.defvjp(both, lambda gradient, tangent: (None, tangent * gradient))
    return lambda u: value(arrays, u)


_OPEN_ENDED: Recent[bool] = Recent(256)


class FlatDensity:
    """The static half of a target as one dictionary key, hashed once: calls are many and short."""

    def __init__(self, static: Static, layout: Layout, treedef: Any):
        self.foreign, self.programs = static.foreign, static.programs
        self.key = static, layout, treedef
        self._hash = hash(static if self.foreign else self.key)

    def log_density(self, leaves: tuple[Array, ...]) -> Callable:
        static, layout, treedef = self.key
        arrays, batch = jax.tree.unflatten(treedef, leaves)
        model = eqx.combine(arrays, static.tree)
        return lambda u: flat_log_density(model, layout, batch, u)

    def open_ended(self, leaves: tuple[Array, ...]) -> bool:
        """Is there a loop in it that may not end?"""
        trace = lambda: jax.make_jaxpr(self.log_density(leaves))(jnp.zeros(self.key[1].size))
        return _OPEN_ENDED.get(self, lambda: open_ended(trace().jaxpr))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, FlatDensity) and self.key == other.key)


@compiled(0)
def _value_and_grad(program: FlatDensity, leaves: tuple[Array, ...], u: Float[Array, "B D"]):
    return jax.vmap(jax.value_and_grad(program.log_density(leaves)))(u)


@compiled(0)
def _value(program: FlatDensity, leaves: tuple[Array, ...], u: Float[Array, "B D"]):
    return jax.vmap(program.log_density(leaves))(u)


@compiled(0)
def _value_and_grad_in_turn(program: FlatDensity, leaves: tuple[Array, ...], u: Float[Array, "B D"], n: Array):
    """As `_value_and_grad` for the first n points, one after the other: others cost nothing."""
    one = jax.value_and_grad(program.log_density(leaves))

    def put(i: Array, out: tuple[Array, Array]) -> tuple[Array, Array]:
        value, gradient = one(u[i])
        return out[0].at[i].set(value), out[1].at[i].set(gradient)

    return jax.lax.fori_loop(0, n, put, (jnp.zeros(u.shape[0], u.dtype), jnp.zeros_like(u)))


@compiled(0)
def _value_in_turn(program: FlatDensity, leaves: tuple[Array, ...], u: Float[Array, "B D"], n: Array):
    one = program.log_density(leaves)
    return jax.lax.fori_loop(0, n, lambda i, out: out.at[i].set(one(u[i])), jnp.zeros(u.shape[0], u.dtype))


class Target:
    """log p(u, data) for flat u in R^D and its gradient, on the host, in float64.

    Attributes: model: in double precision.   traced: the same as it is compiled.
                asked: the accuracy that the user wants, or None.
                box: (2, D), of a density with a loop that may not end far out (an ODE by an adaptive solver): where it was
                comparable to the highest. Half as wide again, and a little more, it is looked at; beyond it is taken as 0.

    Definition: u is the model's latent (unconstrained) in one vector. Where the density or its gradient is not finite
                the value is -inf and the gradient 0: a region of no mass, counted in `n_not_a_number` where it was NaN,
                in `n_outside` where it was -inf itself.
    Cost:       one compiled program of a fixed shape, whatever the solver; a second one where an evaluation takes long
                (`Pace`). Without DIFFERENTIABLE the gradient is a central difference: 2 D values.
    Must be made and used under `jax.enable_x64(True)`.
    """

    def __init__(
        self, model: AbstractModel, rows: PyTree = None, budget: Budget | None = None, accuracy: float | None = None
    ):
        self.layout = Layout(model.latents)
        self.dim, self.names = self.layout.size, self.layout.names()
        self.model, self.batch = model.lifted(), Batch(lifted(rows), None)
        self.smooth = Fact.DIFFERENTIABLE in model.facts
        self.traced = self.model.traced([self.batch])
        arrays, static = eqx.partition(self.traced, eqx.is_array)
        leaves, treedef = jax.tree.flatten((arrays, self.batch))
        self.leaves, self.program = tuple(leaves), FlatDensity(Static(static), self.layout, treedef)
        self.reported = Reported(self.model, self.layout)
        self.budget, self.asked = budget if budget is not None else Budget.unlimited(), accuracy
        self.peak = -math.inf  # the highest value within reach, where there is such a thing
        self.pace = Pace(self.budget, BLOCK, self.dim)
        self.box: np.ndarray | None = None
        if self.program.open_ended(self.leaves):
            self.box = np.outer([-FIRST, FIRST], np.ones(self.dim))
        self.evaluations, self.seconds, self.n_not_a_number, self.n_outside = 0, 0.0, 0, 0
        self.highest: tuple[float, np.ndarray | None] = -np.inf, None  # of all points, where the budget has an end

    def like(self, model: AbstractModel, rows: PyTree = None) -> "Target":
        """Another model's, with the same budget and accuracy."""
        return Target(model, rows, self.budget, self.asked)

    @property
    def accuracy(self) -> float:
        """The standard error of a mean, in sd, at which sampling stops: as asked, or by the price of an evaluation."""
        return self.asked or min(ACCURACY / math.sqrt(self.pace.effort), ACCURACY_OF_DEAR)

    def __call__(
        self, u: Float[np.ndarray, "n D"], careful: bool = False
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n D"]]:
        """(values, gradients). careful: single points may cost much more than others.

        Raises: OutOfBudget, where the budget is overdrawn before all points are evaluated.
        """
        u = np.asarray(u, np.float64)
        value, gradient = self._evaluated(u, careful) if self.box is None else self._in_reach(u, careful, self.box)
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(1))
        if bad.any():
            value, gradient = np.where(bad, -np.inf, value), np.where(bad[:, None], 0.0, gradient)
        return value, gradient

    def value(self, u: Float[np.ndarray, "n D"], careful: bool = False) -> Float[np.ndarray, " n"]:
        """Values alone; by the same program where there is a gradient: one more compilation costs more than it saves."""
        if self.smooth or self.box is not None:
            return self(u, careful)[0]
        value = self._in_pieces(np.asarray(u, np.float64), careful)[0]
        return np.where(np.isfinite(value), value, -np.inf)

    def affordable(self, n: int, share: float = 1.0, least: int = 2) -> int:
        """n, or as many evaluations as fit into a share of what is left of the budget: at least a few."""
        return int(min(n, max(self.budget.room(self.pace.price, share), least)))

    def fewer(self, n: int, least: int = 1) -> int:
        """n, or the share of it that the price of an evaluation allows: at least a few."""
        return int(max(n * self.pace.effort, min(least, n)))

    def raw(self, u: Float[np.ndarray, "n D"]) -> tuple[np.ndarray, np.ndarray]:
        """(values, gradients) as they are, NaN and all; neither counted nor bounded. For messages: values alone where
        there is no gradient."""
        parts = [self._run(b, self.pace.next(len(b))[0]) for b in _cut(np.asarray(u, np.float64), BLOCK)]
        value = np.concatenate([p[0] for p in parts])
        return value, np.concatenate([p[1] for p in parts]) if self.smooth else np.zeros((len(u), self.dim))

    def _run(self, u: np.ndarray, in_blocks: bool) -> tuple[np.ndarray, ...]:
        """One call of a compiled program, with at most a block of points."""
        padded = np.concatenate([u, np.repeat(u[:1], BLOCK - len(u), 0)]) if len(u) < BLOCK else u
        if in_blocks:
            out: Any = (_value_and_grad if self.smooth else _value)(self.program, self.leaves, padded)
        else:
            run = _value_and_grad_in_turn if self.smooth else _value_in_turn
            out = run(self.program, self.leaves, padded, np.int32(len(u)))
        return tuple(np.asarray(a)[: len(u)] for a in (out if self.smooth else (out,)))

    def _in_pieces(self, u: np.ndarray, careful: bool) -> tuple[np.ndarray, ...]:
        """(values,) or (values, gradients), block by block, or point by point; the budget is looked at before each."""
        parts: list[tuple[np.ndarray, ...]] = []
        self.pace.begin(careful)
        at = 0
        if not len(u):
            return (np.zeros(0), np.zeros_like(u)) if self.smooth else (np.zeros(0),)
        while at < len(u):
            if self.budget.overdrawn and self.evaluations:
                raise OutOfBudget
            began, (in_block, size) = time.perf_counter(), self.pace.next(len(u) - at)
            piece = u[at : at + size]
            parts.append(self._run(piece, in_block))
            seconds = time.perf_counter() - began
            self.pace.seen(in_block, len(piece), seconds)
            self._count(piece, parts[-1][0], seconds)
            at += len(piece)
        return tuple(np.concatenate(p) for p in zip(*parts, strict=True))

    def _count(self, u: np.ndarray, value: np.ndarray, seconds: float) -> None:
        self.evaluations += len(u)
        self.seconds += seconds
        self.budget.spend(len(u))
        self.n_not_a_number += int((np.isnan(value) | (value == np.inf)).sum())
        self.n_outside += int((value == -np.inf).sum())
        if self.budget.finite and len(value):
            i = int(np.argmax(np.where(np.isfinite(value), value, -np.inf)))
            if np.isfinite(value[i]) and value[i] > self.highest[0]:
                self.highest = float(value[i]), u[i].copy()

    def _in_reach(self, u: np.ndarray, careful: bool, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margin = BEYOND * (1 + box[1] - box[0]) / 2
        near = ((u >= box[0] - margin) & (u <= box[1] + margin)).all(1)
        value, gradient = np.full(len(u), -np.inf), np.zeros_like(u)
        value[near], gradient[near] = self._evaluated(u[near], careful)
        self.peak = max(self.peak, float(value.max(initial=-np.inf)))
        seen = u[np.isfinite(value) & (value > self.peak - COMPARABLE * self.dim)]
        self.box = np.stack([np.min([box[0], *seen], 0), np.max([box[1], *seen], 0)])
        return value, gradient

    def _evaluated(self, u, careful):
        if self.smooth:
            return self._in_pieces(u, careful)
        n, d = u.shape
        step = DIFFERENCE * (1 + np.abs(u))
        around = np.repeat(u[:, None], 2 * d + 1, 1)
        around[:, 1 : d + 1] += step[:, :, None] * np.eye(d)
        around[:, d + 1 :] -= step[:, :, None] * np.eye(d)
        value = self._in_pieces(around.reshape(-1, d), careful)[0].reshape(n, 2 * d + 1)
        return value[:, 0], (value[:, 1 : d + 1] - value[:, d + 1 :]) / (2 * step)


def _cut(u: np.ndarray, size: int) -> list[np.ndarray]:
    return [u[at : at + size] for at in range(0, len(u), size)]
