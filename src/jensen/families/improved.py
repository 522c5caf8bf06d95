"""An explicit q whose draws are improved by a few steps of a Markov chain that leaves the posterior invariant."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..hamiltonian import Chain
from ..tree import Frozen, Layout, Shared
from .base import AbstractDistribution, AbstractFamily


class Improved(AbstractFamily):
    """q_t(z | x) = int Q_t(z | z0) q_0(z0 | x) dz0, Q_t being t steps of HMC on p(x, z); made by `jensen.fit`, not chosen.

    It can be drawn from, also for new rows; it has no density. `start` is q_0, which has one.
    """

    start: AbstractFamily
    rest: Shared[Frozen[tuple[Any, Array]]]  # the model, and the chain's step size: the same for all rows
    chain: Chain
    layout: Layout = eqx.field(static=True)
    facts: ClassVar = frozenset({Fact.TYPED_NOISE})

    def __init__(self, start: AbstractFamily, model: Any, chain: Chain, step_size: Float[Array, ""] | float):
        self.start, self.chain, self.layout = start, chain, Layout(model.latents)
        self.rest = Shared(Frozen((model, jnp.asarray(step_size))))

    def kind_of(self, site):
        return self.start.kind_of(site)

    def bind(self, latents, rows, key):
        return self

    def __call__(self, x: PyTree) -> "ImprovedAt":
        return ImprovedAt(self.start(x), self.rest, self.chain, x, self.layout)


class ImprovedAt(AbstractDistribution):
    """`Improved` for one x."""

    start: AbstractDistribution
    rest: Shared[Frozen[tuple[Any, Array]]]
    chain: Chain
    x: PyTree
    layout: Layout = eqx.field(static=True)
    facts: ClassVar = Improved.facts

    def kind_of(self, site):
        return self.start.kind_of(site)

    def bind(self, latents, rows, key):
        return self

    def noise_law(self):
        return {"start": self.start.noise_law(), **self.chain.noise_law(self.layout.size)}

    def transform(self, noise):
        model, step_size = self.rest.value.value
        begin = self.layout.ravel(self.start.latent(self.start.transform(noise["start"])))
        log_density = lambda u: model.log_density(self.layout.unravel(u), self.x)
        return self.layout.unravel(self.chain(log_density, begin, noise, step_size).end.u)

    def latent(self, draw):
        return draw

    def log_prob(self, draw):
        raise _no_density()

    def log_ratio(self, draw):
        raise _no_density()


def _no_density() -> ModelError:
    because = "its draws were moved by a Markov chain, over whose paths nobody can sum"
    instead = "fit.family.start(x).log_prob(z): the density before the chain; fit.log_likelihood() for log p(x)"
    return ModelError(explain("the density of a q that MCMC improved", "it has none", because, instead))
