"""Several starts of one algorithm at once, by `vmap`; the best one is kept."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PyTree

from ..tree import default_float
from .base import AbstractAlgorithm

DECAY = 0.99  # of the running score by which lanes are compared


class Restarts(AbstractAlgorithm):
    """n independent copies. Lane 0 starts as given, the others from shifted parameters of q; a lane whose step is not
    finite stays where it was. State: (the lanes' states, running mean of each lane's value).

    Value: the best lane's.   Cost: n times that of one, less what vectorisation saves.
    """

    inner: AbstractAlgorithm
    n: int = eqx.field(static=True)
    spread: float = eqx.field(static=True, default=1.0)

    def init(self, key, batch):
        state = self.inner.init(key, batch)
        start = self.inner.parameters(state)
        family, treedef = jax.tree.flatten(start.family)

        def lane(i: Array) -> PyTree:
            keys = jr.split(jr.fold_in(key, i), max(len(family), 1))
            moved = [
                a + jnp.where(i > 0, self.spread, 0.0).astype(a.dtype) * jr.normal(k, a.shape, a.dtype)
                for a, k in zip(family, keys, strict=False)
            ]
            shifted = eqx.tree_at(lambda p: p.family, start, jax.tree.unflatten(treedef, moved))
            return self.inner.with_parameters(state, shifted)

        return jax.vmap(lane)(jnp.arange(self.n)), jnp.full(self.n, jnp.nan, default_float())

    def noise(self, key, batch):
        return jax.vmap(lambda k: self.inner.noise(k, batch))(jr.split(key, self.n))

    def step(self, noise, state, batch, scale):
        lanes, score = state

        def one(noise, lane):
            new, value = self.inner.step(noise, lane, batch, scale)
            ok = jnp.stack(
                [jnp.isfinite(a).all() for a in jax.tree.leaves((new, value)) if jnp.issubdtype(a.dtype, jnp.inexact)]
            ).all()
            return jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, lane), jnp.where(ok, value, -jnp.inf)

        lanes, values = jax.vmap(one)(noise, lanes)
        values = values.astype(score.dtype)
        blended = DECAY * score + (1 - DECAY) * values
        score = jnp.where(jnp.isfinite(blended), blended, jnp.where(jnp.isfinite(values), values, score))
        return (lanes, score), jnp.max(jnp.where(jnp.isfinite(values), values, -jnp.inf))

    def parameters(self, state):
        return self.inner.parameters(state[0])

    def with_parameters(self, state, parameters):
        return self.inner.with_parameters(state[0], parameters), state[1]

    def best(self, state: PyTree, parameters: PyTree) -> PyTree:
        """The parameters of the lane with the highest running score."""
        score = jnp.where(jnp.isfinite(state[1]), state[1], -jnp.inf)
        return jax.tree.map(lambda a: a[jnp.argmax(score)], parameters)
