"""An empirical distribution: the posterior as a set of draws, where nothing with a density is good enough."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..tree import Frozen, Layout
from .base import AbstractPlain
from .noise import Uniform


class Draws(AbstractPlain):
    """Picks one of n equally likely draws; made by `jensen.fit` when draws were corrected, not chosen.

    It can be sampled and summarised; it has no density.
    """

    points: Frozen
    layout: Layout = eqx.field(static=True)
    facts: ClassVar = frozenset({Fact.TYPED_NOISE, Fact.MOMENTS})

    def __init__(self, shape: PyTree, points: Float[Array, "n D"]):
        self.layout, self.points = Layout(shape), Frozen(jnp.asarray(points))

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        return self

    def noise_law(self):
        return Uniform(())

    def transform(self, noise):
        n = self.points.value.shape[0]
        index = jnp.minimum((noise * n).astype(jnp.int32), n - 1)
        return self.layout.unravel(self.points.value[index])

    def log_prob(self, draw):
        raise ModelError(
            explain(
                "the density of a posterior that is a set of draws",
                "it has none",
                "the draws were corrected by importance weights or by chains",
                "fit.proposal.log_prob(u): the density the correction started from; or fit(..., method='mixture')",
            )
        )

    def moments(self):
        return self.layout.unravel(self.points.value.mean(0)), self.layout.unravel(self.points.value.var(0))
