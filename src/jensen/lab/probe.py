"""One compiled program for each estimator: a step of a fit, with the moments of its gradient summed up along the way.

It serves everything: with a step size, it is the short fit; with one for the estimator's own parameters only, it trains
these where model and family stay; with none, it measures: nothing changes, its carry neither, and the gradients are
independent. So what is timed is what a fit's step costs.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ..algorithms.adam import adam
from ..batch import Batch
from ..compiled import compiled
from ..fit.loop import strong
from ..function import Static
from ..gradients.base import Bound, Parts, draw_noise, estimate
from ..gradients.plans import AbstractPlan
from ..objectives.base import AbstractObjective
from ..tree import default_float, length, split_trainable
from .subject import Candidate, Subject

_ADAM = adam(1.0)
OWN_RATE = 0.01  # step size of what an estimator trains for itself


class Moments(NamedTuple):
    """Sums over steps, of gradients less a centre near their mean; trees as (model, family).

    In single precision a running mean drifts: its updates are rounded alike each time. So sums are short, centred, and
    put together on the host.
    """

    n: Array
    centre: PyTree
    known: Array  # is there a centre? else the first gradient becomes it, exactly
    first: PyTree
    second: PyTree
    total: Array  # the second sum over all parameters ...
    spread: Array  # ... and the sum of squares of each step's contribution, for its error
    value: Array  # of the objective's estimates


class State(NamedTuple):
    params: PyTree  # all that is trained, as in `Parts`
    opt: PyTree
    carry: PyTree
    moments: Moments
    step: Array


class Rates(NamedTuple):
    """Step sizes of model and family, and of the estimator's own parameters; `wander`: a new minibatch at each step."""

    main: Any = 0.0
    own: Any = 0.0
    wander: Any = False


class Switch(AbstractPlan):
    """One of several plans, by a traced index: they share a compilation."""

    plans: tuple[AbstractPlan, ...]
    index: Any

    @property
    def facts(self):
        return frozenset.intersection(*(p.facts for p in self.plans))

    @property
    def requires(self):
        return ()

    def draw(self, key, law, shape):
        if len(self.plans) == 1:
            return self.plans[0].draw(key, law, shape)
        return jax.lax.switch(self.index, [lambda k, p=p: p.draw(k, law, shape) for p in self.plans], key)


class Probe(eqx.Module):
    """Everything but the state: its arrays are arguments, the rest keys the compilation."""

    parts: Parts
    objective: AbstractObjective
    plans: tuple[AbstractPlan, ...]
    n_samples: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)


def _no_moments(like: PyTree) -> Moments:
    zeros = jax.tree.map(jnp.zeros_like, like)
    zero = jnp.zeros((), default_float())
    return Moments(zero, zeros, jnp.zeros((), bool), zeros, zeros, zero, zero, zero)


@compiled(0)
def _start(static: Static, arrays: PyTree, batch: Batch) -> State:
    probe: Probe = eqx.combine(arrays, static.tree)
    params = split_trainable(probe.parts)[0]
    bound = Bound.make(probe.parts.model, probe.parts.family, probe.objective, batch)
    carry = probe.parts.estimator.init(bound)
    moments = _no_moments((params.model, params.family))
    return strong(State(params, _ADAM.init(params), carry, moments, jnp.zeros((), jnp.int32)))


@compiled(0)
def _advance(static: Static, arrays: PyTree, state: State, rows: PyTree, fixed: Batch, key, index, n, rates: Rates):
    probe: Probe = eqx.combine(arrays, static.tree)
    rest = split_trainable(probe.parts)[1]
    root, plan = jr.wrap_key_data(key), Switch(probe.plans, index)

    def batch_at(key: Array) -> Batch:
        if probe.batch_size is None:
            return Batch(rows, None)
        drawn = jr.randint(key, (probe.batch_size,), 0, length(rows))
        pick = lambda a, mine: jnp.where(rates.wander, a[drawn], mine)
        return Batch(jax.tree.map(pick, rows, fixed.rows), fixed.weight)

    def step(_, s: State) -> State:
        noise_key, batch_key = jr.split(jr.fold_in(root, s.step))
        parts: Parts = eqx.combine(s.params, rest)
        batch = batch_at(batch_key)
        noise = draw_noise(noise_key, parts, plan, batch, probe.n_samples)
        e = estimate(noise, parts, probe.objective, batch, s.carry)
        grads: Any = e.grads
        updates: Any
        updates, opt = _ADAM.update(grads, s.opt, s.params)
        at = lambda rate: lambda p, u: jnp.where(rate > 0, p + jnp.asarray(rate, p.dtype) * u, p)
        main, own = at(rates.main), at(rates.own)
        params = Parts(
            jax.tree.map(main, s.params.model, updates.model),
            jax.tree.map(main, s.params.family, updates.family),
            jax.tree.map(own, s.params.estimator, updates.estimator),
        )
        moments = _add(s.moments, (grads.model, grads.family), e.value)
        learning = (rates.main > 0) | (rates.own > 0)
        carry = jax.tree.map(lambda new, old: jnp.where(learning, new, old), e.carry, s.carry)
        return strong(State(params, opt, carry, moments, s.step + 1))

    return jax.lax.fori_loop(0, n, step, state)


def _add(m: Moments, grads: PyTree, value: Array) -> Moments:
    centre = jax.tree.map(lambda c, g: jnp.where(m.known, c, g), m.centre, grads)
    off = jax.tree.map(jnp.subtract, grads, centre)
    first = jax.tree.map(jnp.add, m.first, off)
    squares = jax.tree.map(jnp.square, off)
    second = jax.tree.map(jnp.add, m.second, squares)
    one = sum((a.sum().astype(m.n.dtype) for a in jax.tree.leaves(squares)), jnp.zeros((), m.n.dtype))
    known = jnp.ones((), bool)
    return Moments(
        m.n + 1, centre, known, first, second, m.total + one, m.spread + one**2, m.value + value.astype(m.n.dtype)
    )


@compiled()
def _centred(m: Moments) -> Moments:
    at = jax.tree.map(lambda c, s: c + (s / jnp.maximum(m.n, 1)).astype(c.dtype), m.centre, m.first)
    return _no_moments(at)._replace(centre=at, known=m.known)


def forget(state: State) -> State:
    """The state with sums of nothing, centred where the mean was."""
    return state._replace(moments=_centred(state.moments))


class Sums(NamedTuple):
    """Moments on the host, flat and in double precision."""

    n: int
    mean: np.ndarray
    squares: np.ndarray  # sums of squared deviations from the mean
    ones: tuple[float, float]  # sums of the steps' contributions to the variance, and of their squares
    value: float

    @property
    def variance(self) -> float:
        """Sum over the parameters of the variances of one step's gradient."""
        return float(self.squares.sum()) / max(self.n - 1, 1)

    @property
    def variance_se(self) -> float:
        mean, square = (a / self.n for a in self.ones)
        return float(np.sqrt(max(square - mean**2, 0.0) / self.n))

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.squares).all())

    def plus(self, other: "Sums") -> "Sums":
        """Of both.   Reference:  Chan, Golub and LeVeque (1983), equation 2.1.  [chan1983variance]"""
        n, off = self.n + other.n, other.mean - self.mean
        squares = self.squares + other.squares + off**2 * (self.n * other.n / n)
        ones = self.ones[0] + other.ones[0], self.ones[1] + other.ones[1]
        value = (self.n * self.value + other.n * other.value) / n
        return Sums(n, self.mean + off * (other.n / n), squares, ones, value)


class Runner:
    """A candidate at work: `start`, then `advance` and `sums`."""

    def __init__(self, subject: Subject, candidate: Candidate):
        parts = Parts(subject.model, subject.family, candidate.estimator)
        size = subject.batch_size if subject.minibatched else None
        probe = Probe(parts, subject.objective, tuple(candidate.plans.values()), candidate.n_samples, size)
        arrays, static = eqx.partition(probe, eqx.is_array)
        self.arrays, self.static = strong(arrays), Static(static)
        self.subject, self.candidate = subject, candidate
        self.plans = list(candidate.plans)

    def start(self, fixed: Batch, at: Any = None) -> State:
        """The first state; `at`: (model, family) parameters to start from."""
        state = _start(self.static, self.arrays, fixed)
        if at is None:
            return state
        return state._replace(params=Parts(at[0], at[1], state.params.estimator))

    def advance(self, state: State, fixed: Batch, key: Array, plan: str, n: int, rates: Rates = Rates()) -> State:  # noqa: B008
        """`n` steps, done when this returns."""
        numbers = Rates(np.asarray(rates.main, np.float32), np.asarray(rates.own, np.float32), np.bool_(rates.wander))
        index = np.int32(self.plans.index(plan))
        rows = self.subject.rows
        out = _advance(self.static, self.arrays, state, rows, fixed, jr.key_data(key), index, np.int32(n), numbers)
        return jax.block_until_ready(out)

    def flops(self, state: State, fixed: Batch) -> float | None:
        """Of one step, by the compiler's own count of the program as it is written; None where it does not tell."""
        numbers = Rates(np.float32(0), np.float32(0), np.bool_(False))
        key = jr.key_data(jr.key(0))
        args = self.static, self.arrays, state, self.subject.rows, fixed, key, np.int32(0), np.int32(1), numbers
        found = _advance.lower(*args).cost_analysis() or {}
        return found.get("flops") if isinstance(found, dict) else None


def sums(state: State) -> Sums:
    """Of the steps since `forget`."""
    m = jax.device_get(state.moments)
    leaves: Any = lambda tree: [np.ravel(np.asarray(a, np.float64)) for a in jax.tree.leaves(tree)]
    flat = lambda tree: np.concatenate([*leaves(tree), np.zeros(0)])
    n, off = max(int(m.n), 1), flat(m.first) / max(int(m.n), 1)
    squares = np.maximum(flat(m.second) - n * off**2, 0.0)
    return Sums(int(m.n), flat(m.centre) + off, squares, (float(m.total), float(m.spread)), float(m.value) / n)


def groups(state: State) -> dict[str, slice]:
    """Where in the flat vector lie the model's parameters, the family's, and each array's."""
    tree = {"model": state.params.model, "family": state.params.family}
    leaves = jax.tree_util.tree_flatten_with_path((tree["model"], tree["family"]))[0]
    out, at, ends = {}, 0, {"model": [0, 0], "family": [0, 0]}
    for path, leaf in leaves:
        part = ("model", "family")[path[0].idx]  # pyright: ignore[reportAttributeAccessIssue]
        if ends[part][1] == 0:
            ends[part][0] = at
        out[f"{part}{jax.tree_util.keystr(path[1:])}"] = slice(at, at + leaf.size)
        at += leaf.size
        ends[part][1] = at
    whole = {part: slice(*edge) for part, edge in ends.items() if edge[1] > edge[0]}
    return whole | out
