"""Many independent estimates of one composition, and their comparison with an exact reference."""

import hashlib
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from reference import FAST
from scipy.stats import norm

from jensen.batch import Batch
from jensen.cell_examples import examples
from jensen.facts import Fact
from jensen.families.noise import Keys, is_law
from jensen.gradients import plans
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.gradients.plans import AbstractPlan
from jensen.tree import length

LEVEL = 1e-4  # of the whole family of tests
BATCH = 2  # rows of a minibatch


def fresh(plan):
    """key -> the plan. One that repeats its noise at every step gets a new seed each time: it is unbiased over seeds."""
    repeats = Fact.FRESH not in plan.facts
    return lambda key: type(plan)(seed=jr.bits(key, dtype="uint32") >> 1) if repeats else plan


class Alone(AbstractPlan):
    """A plan as it is."""

    plan: AbstractPlan
    facts: ClassVar = frozenset()
    requires: ClassVar = ()

    def draw(self, key, law, shape):
        return fresh(self.plan)(key).draw(key, law, shape)


class Chosen(AbstractPlan):
    """One of the exported plans, by a traced index: one compilation serves all."""

    index: Any
    facts: ClassVar = frozenset()
    requires: ClassVar = ()

    def draw(self, key, law, shape):
        keyed = any(isinstance(one, Keys) for one in jax.tree.leaves(law, is_leaf=is_law))

        def branch(plan):
            if keyed and plan.requires:
                return lambda k: plans.IID().draw(k, law, shape)  # never chosen: the judge refuses this plan
            return lambda k: fresh(plan)(k).draw(k, law, shape)

        return jax.lax.switch(self.index, [branch(e.part) for e in examples("plan").values()], key)


class Comparison(NamedTuple):
    z: float  # largest |z| over the coordinates that vary
    fixed: float  # largest deviation over the coordinates that do not

    def within(self, threshold: float) -> bool:
        return self.z < threshold and self.fixed < 1e-7


def threshold(n_numbers: int) -> float:
    """|z| that none of so many numbers exceeds with probability 1 - LEVEL (Bonferroni)."""
    return float(norm.isf(LEVEL / (2 * n_numbers)))


THRESHOLD = threshold(10**7)  # more numbers than all cells have together


def key_of(name: str) -> jax.Array:
    """One key a cell, stable over processes."""
    return jr.key(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1)


def sampler(composition: Any, rows: Any, scaled: bool = True, shared: bool = False):
    """(keys, index of the plan, carry) -> estimates (n, 1 + parameters), value first, and the carries after.

    scaled: False for a negative control: minibatches count as they are.   shared: for all plans; else for the cell's own."""
    c = composition
    parts = Parts(c.model, c.family, c.gradient)

    def one(key, index, carry):
        k1, k2 = jr.split(key)
        batch = Batch(rows)
        if c.minibatched:
            n = length(rows)
            chosen = jr.permutation(k1, n)[:BATCH]
            batch = Batch(jax.tree.map(lambda a: a[chosen], rows), jnp.full(BATCH, n / BATCH if scaled else 1.0))
        e = value_and_grad(
            k2, parts, c.objective, Chosen(index) if shared else Alone(c.plan), batch, carry, n_samples=c.n_samples
        )
        return jnp.append(e.value, ravel_pytree((e.grads.model, e.grads.family))[0]), e.carry

    return jax.jit(jax.vmap(one, (0, None, None)), compiler_options=FAST)


def estimates(composition: Any, rows: Any, name: str, n: int = 20_000, sample: Any = None) -> list[np.ndarray]:
    """Samples of (value, gradient). A gradient with state gives two: from its first state, and from a later one."""
    c = composition
    sample = sampler(c, rows) if sample is None else sample
    index = list(examples("plan")).index(type(c.plan).__name__ + "()")
    first = Batch(jax.tree.map(lambda a: a[:BATCH], rows), jnp.ones(BATCH)) if c.minibatched else Batch(rows)
    carry = c.gradient.init(Bound.make(c.model, c.family, c.objective, first))
    out = []
    for key in jr.split(key_of(name), 2 if jax.tree.leaves(carry) else 1):
        values, carries = sample(jr.split(key, n), index, carry)
        out.append(np.asarray(values))
        # what a few hundred steps would leave: an average over steps, made of draws used nowhere else
        carry = jax.tree.map(lambda a: a[:300].mean(0), carries)
    return out


def compare(samples: np.ndarray, reference: Any) -> Comparison:
    """z-scores; a coordinate that never varies is compared as it is."""
    target = np.append(reference.value, reference.grad)
    mean, se = samples.mean(0), samples.std(0) / len(samples) ** 0.5
    off, scale = np.abs(mean - target), 1 + np.abs(target)
    varies = se > 1e-10 * scale
    z = np.max(off[varies] / se[varies], initial=0.0) if np.isfinite(samples).all() else np.inf
    return Comparison(float(z), float(np.max((off / scale)[~varies], initial=0.0)))
