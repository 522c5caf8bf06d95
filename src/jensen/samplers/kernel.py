"""One compiled program: many chains, side by side, for a segment of iterations."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..algorithms.budget import OutOfBudget
from ..algorithms.target import Target, flat_log_density, in_turn
from ..compiled import compiled
from ..errors import IncompatibleComposition, explain
from ..function import Static
from ..tree import Layout

SEGMENT = 16  # iterations a call


class How(NamedTuple):
    """What a program is made for: the kind of chains; densities one after the other?; between a normal and the target?"""

    kind: str
    in_turn: bool
    tempered: bool


class Segment(NamedTuple):
    """What a segment of T iterations of C chains gives; `accepted` are acceptance probabilities."""

    z: Float[np.ndarray, "T C D"]
    u: Float[np.ndarray, "T C D"]
    log_p: Float[np.ndarray, "T C"]
    accepted: Float[np.ndarray, "T C"]
    moved: np.ndarray  # bool (T, C)
    diverged: np.ndarray  # bool (T, C)


def density_of(static: Static, layout: Layout, arrays: PyTree, one_by_one: bool) -> Callable:
    """log p(u) of the model in (model, transport, batch), given as arrays and a static half."""

    def density(arrays: PyTree, u: Float[Array, " D"]) -> Float[Array, ""]:
        model, _, batch = eqx.combine(arrays, static.tree)
        return flat_log_density(model, layout, batch, u)

    without = (arrays[0], jax.tree.map(lambda _: None, arrays[1]), arrays[2])
    return in_turn(density, without) if one_by_one else lambda u: density(without, u)


@compiled(0, 1, 2)
def _segment(how: How, static: Static, layout: Layout, arrays, key_data, z, step_size, n_leapfrog, tempering):
    from blackjax.mcmc import hmc, mala

    transport = eqx.combine(arrays, static.tree)[1]
    dim = z.shape[1]
    density = density_of(static, layout, arrays, how.in_turn)

    def log_p(z):
        u, log_det = transport(z)
        return density(u), u, log_det

    def log_density(z):
        """Between the standard normal (tempering 0) and the target (1), in the transport's coordinates."""
        value, _, log_det = log_p(z)
        if not how.tempered:
            return value + log_det
        return tempering * (value + log_det) - (1 - tempering) * 0.5 * (z**2).sum()

    method = {"hmc": hmc, "mala": mala}[how.kind]
    kernel = method.build_kernel()
    metric = jnp.ones(dim)

    def one(key, state, step, n):
        if how.kind == "mala":
            return kernel(key, state, log_density, step)
        return kernel(key, state, log_density, step, metric, n)

    def iterate(states, inputs):
        key, n = inputs
        keys = jr.split(key, z.shape[0])
        states, info = jax.vmap(one, in_axes=(0, 0, 0, None))(keys, states, step_size, n)
        moved = getattr(info, "is_accepted", jnp.ones(z.shape[0], bool))
        diverged = getattr(info, "is_divergent", jnp.zeros(z.shape[0], bool))
        return states, (states.position, states.logdensity, info.acceptance_rate, moved, diverged)

    states = jax.vmap(lambda z: method.init(z, log_density))(z)
    keys = jr.split(jr.wrap_key_data(key_data), n_leapfrog.shape[0])
    _, (z, value, accepted, moved, diverged) = jax.lax.scan(iterate, states, (keys, n_leapfrog))
    if how.tempered:
        value, u, _ = jax.lax.map(jax.vmap(log_p), z)
    else:
        u, log_det = jax.lax.map(jax.vmap(transport), z)
        value = value - log_det
    return z, u, value, accepted, moved, diverged


def needs_derivatives(target: Target, name: str) -> None:
    """Raises IncompatibleComposition where the density has no derivatives: `name` moves along gradients, in JAX."""
    if not target.smooth:
        raise IncompatibleComposition(
            explain(
                f"method={name!r} with `{type(target.model).__name__}`",
                "the log density has no derivatives",
                "its moves follow the gradient, many times a draw: differences of values would cost 2 D of them each time",
                "a gradient for the model (value_and_grad=...), or a method that needs few: method='importance'",
            )
        )


class Halves:
    """A tree as arrays and a `Static`, which is hashed once for as long as the structure stays."""

    def __init__(self):
        self._structure, self._static = None, None

    def of(self, tree: PyTree) -> tuple[PyTree, Any]:
        arrays, static = eqx.partition(tree, eqx.is_array)
        structure = jax.tree.structure(static)
        if self._static is None or self._structure != structure:
            self._structure, self._static = structure, Static(static)
        return arrays, self._static


class Sampler:
    """Chains of one kind on a target, in the coordinates of a transport."""

    def __init__(self, target: Target, kind: str = "hmc"):
        needs_derivatives(target, kind)
        self.target, self.kind, self.in_turn = target, kind, target.pace.in_turn
        self.price: float | None = None  # seconds a gradient, of a segment that did not compile
        self._called = False
        self._halves = Halves()

    def run(
        self,
        transport: PyTree,
        z: np.ndarray,
        key: Array,
        step_size,
        n_leapfrog,
        tempering: float = 1.0,
        whole: bool = True,
    ) -> Segment:
        """One segment from z (C, D). `step_size` (C,); `n_leapfrog` (T,), shared by the chains of an iteration.

        whole: False: of fewer iterations where the budget pays for fewer.   Raises: OutOfBudget where it pays for none.
        """
        t = self.target
        n_leapfrog, began = np.asarray(n_leapfrog), time.perf_counter()
        n = self._paid_for(n_leapfrog, len(z))
        if n == 0 or (whole and n < len(n_leapfrog)):
            raise OutOfBudget
        if self.kind != "hmc" and n < len(n_leapfrog):  # it does not heed n_leapfrog: one iteration, of its own program
            n, n_leapfrog = 1, n_leapfrog[:1]
        n_leapfrog = np.where(np.arange(len(n_leapfrog)) < n, n_leapfrog, 0)  # no leapfrog, no evaluation
        arrays, static = self._halves.of((t.traced, transport, t.batch))
        out = _segment(
            How(self.kind, self.in_turn, tempering != 1.0), static, t.layout, arrays, jr.key_data(key), jnp.asarray(z),
            jnp.broadcast_to(jnp.asarray(step_size, float), (len(z),)), jnp.asarray(n_leapfrog, jnp.int32),
            jnp.asarray(tempering, float),
        )  # fmt: skip
        segment = Segment(*(np.asarray(a)[:n] for a in out))
        spent = int(np.sum(n_leapfrog)) * len(z)
        t.evaluations += spent
        t.budget.spend(spent)
        if self._called:
            self.price = (time.perf_counter() - began) / max(spent, 1)
        self._called = True
        return segment

    def _paid_for(self, n_leapfrog: np.ndarray, n_chains: int) -> int:
        """Of how many iterations the gradients fit into what is left, with one more compilation at the first."""
        t = self.target
        if not t.budget.finite:
            return len(n_leapfrog)
        price = t.pace.price if self.price is None else self.price
        cost = n_chains * np.cumsum(n_leapfrog) + (0 if self._called else t.pace.compiling / max(price, 1e-12))
        return int((cost <= t.budget.room(price)).sum())
