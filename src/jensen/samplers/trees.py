"""The No-U-Turn sampler as a machine of single leapfrogs: chains side by side, none of which waits for another's tree."""

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..algorithms.target import Target
from ..compiled import compiled
from ..function import Static
from ..tree import Layout
from .kernel import Halves, density_of, needs_derivatives

DEEPEST = 10  # doublings of a tree
ROOM = 32  # draws a chain and a call
DIVERGED = 1000.0  # nats by which the energy may rise
NARROW = 0.05  # share of the transitions with smaller steps, down to a tenth: they enter, and leave, narrow places
GAMMA, T0, KAPPA = 0.05, 10.0, 0.75  # of dual averaging


class Place(NamedTuple):
    """A point with its momentum and the gradient there."""

    z: Float[Array, " D"]
    r: Float[Array, " D"]
    g: Float[Array, " D"]


class Draw(NamedTuple):
    """A point, log p and its gradient there."""

    z: Float[Array, " D"]
    value: Float[Array, ""]
    g: Float[Array, " D"]


class Dual(NamedTuple):
    """Nesterov's dual averaging of a log step size (Hoffman and Gelman 2014, section 3.2)."""

    log_step: Float[Array, ""]
    mean: Float[Array, ""]  # of the log step sizes, later ones weighing more
    error: Float[Array, ""]
    t: Float[Array, ""]
    centre: Float[Array, ""]

    def after(self, accepted: Array, wanted: Array) -> "Dual":
        t = self.t + 1
        error = self.error + (wanted - accepted - self.error) / (t + T0)
        log_step = self.centre - jnp.sqrt(t) / GAMMA * error
        return Dual(log_step, self.mean + (log_step - self.mean) * t**-KAPPA, error, t, self.centre)


class Chain(NamedTuple):
    """One chain within a tree; the tree is its draw so far, its two ends, and a branch that grows by one leaf at a time.

    log_weight, momentum: of the tree: log of the sum of its leaves' weights, sum of their momenta; `branch_...` of the
    branch.   marks, mark_sums: momenta, and their sums in the branch, at the leaves where a half of the branch may begin.
    new: has log p at `edge` yet to be evaluated?   factor: of the step size, in this transition.
    """

    draw: Draw
    left: Place
    right: Place
    log_weight: Float[Array, ""]
    momentum: Float[Array, " D"]
    depth: Int[Array, ""]
    energy: Float[Array, ""]
    edge: Place
    sign: Float[Array, ""]
    leaf: Int[Array, ""]
    branch_draw: Draw
    branch_log_weight: Float[Array, ""]
    branch_momentum: Float[Array, " D"]
    marks: Float[Array, "K D"]
    mark_sums: Float[Array, "K D"]
    accepted: Float[Array, ""]
    leaps: Int[Array, ""]
    moved: Bool[Array, ""]
    new: Bool[Array, ""]
    factor: Float[Array, ""]
    dual: Dual


def started(z: Float[np.ndarray, "C D"], step: float | np.ndarray) -> Chain:
    """Chains about to begin at z; the step size is adapted from here."""
    c, d = z.shape
    zero, none, rows = np.zeros((c, d)), np.zeros(c), np.zeros((c, DEEPEST, d))
    place, draw, log_step = Place(z, zero, zero), Draw(z, none, zero), np.broadcast_to(np.log(step), (c,))
    count = np.zeros(c, np.int32)
    dual = Dual(log_step, log_step, none, none, log_step + np.log(2.0))
    flags = np.zeros(c, bool), np.ones(c, bool), np.ones(c)
    branch = place, none, count, draw, none, zero, rows, rows, none, count
    return jax.tree.map(jnp.asarray, Chain(draw, place, place, none, zero, count, none, *branch, *flags, dual))


def turns(left: Array, right: Array, total: Array) -> Array:
    """Has a path with these momenta at its ends, and their sum over it, begun to return? (Betancourt 2017, A.4.2)"""
    middle = total - 0.5 * (left + right)
    return ((left * middle).sum(-1) <= 0) | ((right * middle).sum(-1) <= 0)


def pick(condition: Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def leap(density, c: Chain, momentum: Array, uniform: Array, wanted: Array, adapting: Array, deepest: Array):
    """One leapfrog of one chain: (the chain, did its transition end?, did it diverge?, mean acceptance, leapfrogs).

    Where it ended `draw` is the new state, and the next transition has begun with `momentum`. A branch of 2^depth leaves
    grows at one end of the tree; each leaf closes those halves, quarters, ... of it that end there, and these are looked
    at for a U-turn; log2 of the branch's size of momenta are remembered for that (Phan, Pradhan and Jankowiak 2019).
    """
    step = jnp.where(c.new, 0.0, c.factor * c.sign * jnp.exp(c.dual.log_step))
    r = c.edge.r + 0.5 * step * c.edge.g
    z = c.edge.z + step * r
    value, g = density(z)
    edge = Place(z, r + 0.5 * step * g, g)
    gain = value - 0.5 * (edge.r**2).sum() - c.energy
    gain = jnp.where(jnp.isfinite(gain) & jnp.isfinite(g).all(), gain, -jnp.inf)
    diverged = gain < -DIVERGED
    accepted, leaps = c.accepted + jnp.minimum(1.0, jnp.exp(gain)), c.leaps + 1

    # the leaf joins the branch, whose draw is one of its leaves by their weights
    weight = jnp.logaddexp(c.branch_log_weight, gain)
    branch_draw = pick(jnp.log(uniform[0]) < gain - weight, Draw(z, value, g), c.branch_draw)
    total = c.branch_momentum + edge.r
    bits = jax.lax.population_count
    last = bits(c.leaf >> 1)
    first = last - bits(c.leaf ^ (c.leaf + 1)) + 2
    rows = jnp.arange(DEEPEST)
    begins = (c.leaf % 2 == 0) & (rows == last)
    marks = jnp.where(begins[:, None], edge.r, c.marks)
    mark_sums = jnp.where(begins[:, None], total, c.mark_sums)
    closed = (c.leaf % 2 == 1) & (rows >= first) & (rows <= last)
    turning = (closed & turns(marks, edge.r, total - mark_sums + marks)).any()

    # a whole branch joins the tree
    failed = diverged | turning
    whole = ~failed & (c.leaf + 1 == 1 << c.depth)
    takes = whole & (jnp.log(uniform[1]) < weight - c.log_weight)
    draw = pick(takes, branch_draw, c.draw)
    left, right = pick(whole & (c.sign < 0), edge, c.left), pick(whole & (c.sign > 0), edge, c.right)
    momentum_sum = jnp.where(whole, c.momentum + total, c.momentum)
    depth = c.depth + whole
    ended = failed | (whole & (turns(left.r, right.r, momentum_sum) | (depth >= deepest)))
    sign = jnp.where(uniform[2] < 0.5, -1.0, 1.0)
    grown = Chain(
        draw, left, right, jnp.where(whole, jnp.logaddexp(c.log_weight, weight), c.log_weight), momentum_sum, depth,
        c.energy, pick(whole, pick(sign < 0, left, right), edge), jnp.where(whole, sign, c.sign),
        jnp.where(whole, 0, c.leaf + 1), branch_draw, jnp.where(whole, -jnp.inf, weight),
        jnp.where(whole, 0.0, total), marks, mark_sums, accepted, leaps, c.moved | takes, jnp.zeros((), bool), c.factor, c.dual,
    )  # fmt: skip

    # the next transition
    ended = ended & ~c.new
    draw = pick(c.new, Draw(z, value, g), draw)
    place, zero, count = Place(draw.z, momentum, draw.g), jnp.zeros_like(momentum), jnp.zeros((), jnp.int32)
    factor = jnp.where(uniform[3] < NARROW, 0.1 ** (uniform[3] / NARROW), 1.0)
    dual = pick(ended & adapting & (c.factor == 1), c.dual.after(accepted / leaps, wanted), c.dual)
    no, nothing = jnp.zeros((), bool), jnp.zeros(())
    fresh = Chain(
        draw, place, place, nothing, momentum, count, draw.value - 0.5 * (momentum**2).sum(), place, sign, count,
        draw, nothing - jnp.inf, zero, marks, mark_sums, nothing, count, no, no, factor, dual,
    )  # fmt: skip
    return pick(ended | c.new, fresh, grown), ended, diverged, accepted / leaps, leaps, grown.moved


@compiled(0, 1, 2)
def _run(
    one_by_one: bool, static: Static, layout: Layout, arrays, key_data, chains: Chain, wanted, adapting, deepest, most
):
    """Leapfrogs of all chains, until one has ROOM draws or `most` are done; the draws of each, and how many. one_by_one:
    are densities evaluated one after the other?"""
    transport = eqx.combine(arrays, static.tree)[1]
    c, d = chains.draw.z.shape
    key, normal_key = jr.split(jr.wrap_key_data(key_data))
    momenta = jr.normal(normal_key, (c, ROOM + 1, d))  # the first for chains that are new
    index = jnp.arange(c)
    density = density_of(static, layout, arrays, one_by_one)

    def log_density(z):
        u, log_det = transport(z)
        value = density(u) + log_det
        return jnp.where(value < jnp.inf, value, -jnp.inf)  # nor NaN

    def iterate(carry):
        i, chains, n, out = carry
        uniform = jr.uniform(jr.fold_in(key, i), (c, 4))
        chains, ended, *seen = jax.vmap(leap, (None, 0, 0, 0, None, None, None))(
            jax.value_and_grad(log_density), chains, momenta[index, n + ~chains.new], uniform, wanted, adapting, deepest
        )
        row = (chains.draw, *seen)
        out = jax.tree.map(lambda a, b: a.at[index, n].set(b), out, row)
        return i + 1, chains, n + ended, out

    draw = Draw(jnp.zeros((c, ROOM, d)), jnp.zeros((c, ROOM)), jnp.zeros((c, ROOM, d)))
    flag = jnp.zeros((c, ROOM), bool)
    out = draw, flag, jnp.zeros((c, ROOM)), jnp.zeros((c, ROOM), jnp.int32), flag
    going = lambda carry: (carry[0] < most) & (carry[2].max() < ROOM)
    i, chains, n, out = jax.lax.while_loop(going, iterate, (0, chains, jnp.zeros(c, jnp.int32), out))
    u, log_det = jax.vmap(jax.vmap(transport))(out[0].z)
    return i, chains, n, u, out[0].value - log_det, out[0].g, *out[1:]


class Run(NamedTuple):
    """What one call gave: of chain c the first n[c] rows of each array; gradients in the transport's coordinates."""

    chains: Chain
    n: Int[np.ndarray, " C"]
    u: Float[np.ndarray, "C T D"]
    log_p: Float[np.ndarray, "C T"]
    g: Float[np.ndarray, "C T D"]
    diverged: Bool[np.ndarray, "C T"]
    accepted: Float[np.ndarray, "C T"]
    leaps: Int[np.ndarray, "C T"]
    moved: Bool[np.ndarray, "C T"]


class Trees:
    """Chains of the No-U-Turn sampler on a target, in the coordinates of a transport.

    Cost: one gradient a chain and leapfrog, all of which serve: a chain goes on with its next tree as soon as one is done.
    """

    def __init__(self, target: Target):
        needs_derivatives(target, "nuts")
        self.target, self.in_turn = target, target.pace.in_turn
        self.price: float | None = None  # seconds a leapfrog of all chains
        self._called, self._halves = False, Halves()

    def run(self, transport: Any, chains: Chain, key: Array, wanted: float, adapting: bool, most: int) -> Run:
        """At most `most` leapfrogs of each chain, fewer where one has ROOM draws."""
        t, began = self.target, time.perf_counter()
        arrays, static = self._halves.of((t.traced, transport, t.batch))
        done, chains, *out = _run(
            self.in_turn, static, t.layout, arrays, jr.key_data(key), chains, jnp.asarray(wanted, float),
            jnp.asarray(adapting), jnp.asarray(DEEPEST, jnp.int32), jnp.asarray(most, jnp.int32),
        )  # fmt: skip
        found = Run(chains, *(np.asarray(a) for a in out))
        spent = int(done) * len(found.n)
        t.evaluations += spent
        t.budget.spend(spent)
        if self._called:
            self.price = (time.perf_counter() - began) / max(int(done), 1)
        self._called = True
        return found
