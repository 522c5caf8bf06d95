"""Particle semi-implicit families: the mixing distribution is a set of trained points."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Layout, Shared, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractFamily
from .conditional import AbstractConditional, bind_conditional, start_conditional
from .noise import Uniform


class Particles(AbstractConditional):
    """Semi-implicit q mixed over n trained particles, as in particle variational inference (PVI).

    Definition: q(z) = 1/n sum_i q(z | e_i): the mixing distribution is the empirical one of the particles e_1..n, and q is
                explicit: the ELBO is not bounded, and nothing is sampled to evaluate it.
    Arguments:  n: particles, 1 or more.   conditional, hidden, activation, scale: as for `SemiImplicit`.
                n_noise: dimensions of a particle (default: those of the latents); they start at N(0, I).
    Kept of PVI: the ELBO of the empirical mixing distribution, whose gradient in e_i is (up to 1/n) the drift of the paper's
                Wasserstein flow. With `DoublyReparameterised()`, `plans.Stratified()` and n_samples=n each particle is moved by
                a draw of its own at each step. Not kept: Langevin noise with the KL of the mixing distribution from N(0, I)
                (the paper's lambda_r, which may be 0), and the preconditioner, whose place the optimiser takes.
    Cost:       n evaluations of q(z | e) a draw.
    Reference:  Lim and Johansen (2024), equations 6-9.  [lim2024pvi]
    """

    context: Float[Array, " H"]
    conditional: Shared[AbstractFamily]
    particles: Shared[Float[Array, "n E"]]
    n: int = eqx.field(static=True)
    n_noise: int | None = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, n: int = 100, *, conditional: AbstractFamily | None = None, n_noise: int | None = None,
        hidden: Sequence[int] = (50, 50), activation: str = "relu", scale: float = 0.5,
    ):  # fmt: skip
        for name, value in (("n", n), ("n_noise", n_noise)):
            if value is not None and value < 1:
                because = "q is mixed over n particles of n_noise dimensions"
                raise OptionError(explain(f"`Particles({name}={value})`", "it is below 1", because, f"{name}=100"))
        self.conditional = Shared(start_conditional("Particles", conditional, hidden, activation, scale))
        self.n, self.n_noise, self.hidden = int(n), n_noise, tuple(hidden)
        self.context = self.particles = UNSIZED

    @property
    def facts(self):
        shared = self.conditional.value.facts & {Fact.REPARAMETERISED, Fact.TYPED_NOISE}
        return PLAIN - {Fact.OWN_PARAMETERS, Fact.TYPED_NOISE} | shared

    def bind(self, latents, rows, key):
        k1, k2 = jr.split(key)
        wide = self.n_noise or Layout(latents).size
        eps = jax.ShapeDtypeStruct((wide,), default_float())
        conditional = bind_conditional(self.conditional.value, latents, self.hidden[0], eps, k1)
        if self.particles is not None:
            return self
        particles = Shared(jr.normal(k2, (self.n, wide), eps.dtype))
        context = jnp.zeros(self.hidden[0], eps.dtype)
        return replaced(self, conditional=Shared(conditional), n_noise=wide, context=context, particles=particles)

    def noise_law(self):
        given = eqx.filter_eval_shape(lambda q: q.given(q.particles.value[0]), self)
        return Uniform(()), given.noise_law()

    def transform(self, noise):
        u, own = noise
        which = jnp.clip((u * self.n).astype(int), 0, self.n - 1)
        return self.given(self.particles.value[which]).transform(own)

    def log_prob(self, draw):
        return self.log_mixture(draw, self.particles.value)

    def latent(self, draw):
        return draw

    def log_ratio(self, draw):
        return self.log_prob(draw)
