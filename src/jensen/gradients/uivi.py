"""Unbiased implicit variational inference."""

from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact, Requirement
from .base import AbstractEstimator, Terms
from .requirements import DIFFERENTIABLE, FRESH, LINEAR, REPARAMETERISED

_SEMI_IMPLICIT = Requirement(
    "family",
    Fact.SEMI_IMPLICIT,
    "eps is drawn from q(eps | z), of which the mixing distribution and the conditional are the two factors",
    "SemiImplicit(), or DoublyReparameterised() for a family with a density",
)
TARGET, RATE, MEMORY = 0.9, 0.05, 0.99  # of the adaptation: acceptance sought, gain in log step, of the running mean
STUCK = 0.1  # an acceptance below which eps' is hardly another than eps


class Adapted(NamedTuple):
    """The carry. acceptance: a running mean over steps; near 0 the chains do not move."""

    log_step: Float[Array, ""]
    acceptance: Float[Array, ""]


class UIVI(AbstractEstimator):
    """Unbiased implicit variational inference (UIVI): the gradient of the ELBO of a semi-implicit q.

    Definition: grad = E[ grad_z (log p(x, z) - log q(z)) dz/dphi ], with
                grad_z log q(z) = E_{q(eps' | z)} grad_z log q(z | eps').
    Arguments:  sampler: how eps' is drawn from q(eps' | z): "hmc", Hamiltonian Monte Carlo that starts at the eps which made
                z, a draw from that law already, and moves to be independent of it; or "importance", self-normalised importance
                sampling with the draw's own L + 1 mixing draws (cheap, and biased by O(1/L)).
                n_burn_in, n_keep: steps of a chain, left out and averaged.   n_leapfrog: a step.   step_size: at the start; it
                is adapted to an acceptance of 0.9. If it is small, the chains hardly move at first, and q collapses to its
                conditional before they do.
    Returns:    as value the family's own bound with its L, which lies below the ELBO that is followed.
    Bias:       that of a chain too short to forget its start, none in the limit; so it is declared. A chain that never moves
                leaves the gradient of the bound with L = 0, a lower bound still; the verdict then says so.
    Cost:       (n_burn_in + n_keep) n_leapfrog gradients of q(eps, z) a draw, and one of log p.
    Reference:  Titsias and Ruiz (2019), equations 8-12.  [titsias2019uivi]
    """

    sampler: str = eqx.field(static=True)
    n_burn_in: int = eqx.field(static=True)
    n_keep: int = eqx.field(static=True)
    n_leapfrog: int = eqx.field(static=True)
    step_size: float = eqx.field(static=True)
    requires: ClassVar = (REPARAMETERISED, DIFFERENTIABLE, _SEMI_IMPLICIT, LINEAR, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = False
    minimises_variance: ClassVar = False
    role: ClassVar = None

    def __init__(
        self, sampler: Literal["hmc", "importance"] = "hmc", *, n_burn_in: int = 5, n_keep: int = 5, n_leapfrog: int = 5,
        step_size: float = 0.3,
    ):  # fmt: skip
        asked = f"`UIVI({sampler!r}, n_burn_in={n_burn_in}, n_keep={n_keep}, n_leapfrog={n_leapfrog}, step_size={step_size})`"
        if sampler not in ("hmc", "importance"):
            raise OptionError(
                explain(asked, "the sampler is unknown", "the name is looked up", '"hmc" or "importance"')
            )
        if n_burn_in < 0 or min(n_keep, n_leapfrog) < 1 or not step_size > 0:
            because, instead = "a chain makes steps and keeps some", "n_keep and n_leapfrog >= 1, step_size > 0"
            raise OptionError(explain(asked, "out of range", because, instead))
        self.sampler, self.n_burn_in, self.n_keep = sampler, int(n_burn_in), int(n_keep)
        self.n_leapfrog, self.step_size = int(n_leapfrog), float(step_size)

    def init(self, bound):
        dtype = jnp.result_type(float)
        return Adapted(jnp.asarray(jnp.log(self.step_size), dtype), jnp.asarray(TARGET, dtype))

    def update(self, carry, stat):
        if self.sampler == "importance":
            return carry
        return Adapted(carry.log_step + RATE * (stat - TARGET), MEMORY * carry.acceptance + (1 - MEMORY) * stat)

    def findings(self, carry):
        """The acceptance of the chains, which the verdict reports."""
        rate = float(carry.acceptance)
        if self.sampler == "importance" or rate > STUCK:
            return []
        still = "the gradient was that of the bound with a single eps, and q is too narrow"
        return [(2, f"UIVI's chains hardly moved (acceptance {rate:.2f}): {still}; try a smaller step_size")]

    def noise(self, key, plan, q, shape):
        k1, k2 = jr.split(key)
        own = plan.draw(k1, q.noise_law(), shape)
        return own, jr.split(k2, shape) if self.sampler == "hmc" else own

    def terms(self, noise, bound, carry):
        own, keys = noise
        draws = bound.draw(own)
        fixed = jax.tree.map(stop_gradient, draws)
        score, accepted = jax.tree.map(stop_gradient, self._score(bound.stop("q"), fixed, keys, carry))

        def cell(m, q, x, draw, s):
            """The log-weight, with <s, z> in the place of log q(z): its gradient in z is the same."""
            along: Any = sum(
                jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(s), jax.tree.leaves(q.latent(draw)), strict=True)
            )
            return bound.objective.log_weight(m, q.latent(draw), along, x)

        surrogate = bound.reduce(bound.map(cell, draws, score))
        value = stop_gradient(bound.reduce(bound.log_weight(fixed)))
        return Terms(surrogate, value, stat=accepted.mean())

    def _score(self, bound: Any, draws: PyTree, keys: PyTree, carry: Adapted) -> tuple[PyTree, Array]:
        """(estimates of grad_z log q(z), acceptance), leading with (K, *plate)."""

        def weighted(m, q, x, draw):
            z, eps = q.latent(draw), draw[1]
            return jax.grad(lambda z: q.log_ratio((z, eps)))(z), jnp.ones(())

        def chained(m, q, x, draw, key):
            z, start = q.latent(draw), q.generating(draw)
            eps, accepted = self._chain(lambda eps: q.log_joint(z, eps), start, key, jnp.exp(carry.log_step))
            scores = jax.vmap(lambda e: jax.grad(q.log_joint)(z, e))(eps)
            return jax.tree.map(lambda a: a.mean(0), scores), accepted

        return bound.map(weighted, draws) if self.sampler == "importance" else bound.map(chained, draws, keys)

    def _chain(self, log_density: Any, start: PyTree, key: Array, step: Array) -> tuple[PyTree, Array]:
        """(the eps that are kept, mean acceptance) of one chain; what is not finite is never accepted."""
        from blackjax.mcmc import hmc

        flat, unravel = ravel_pytree(start)
        target = lambda e: log_density(unravel(e))
        metric = jnp.ones(flat.size, flat.dtype)
        kernel: Any = hmc.build_kernel()

        def iterate(state, key):
            state, info = kernel(key, state, target, step, metric, self.n_leapfrog)
            return state, (state.position, info.acceptance_rate)

        keys = jr.split(key, self.n_burn_in + self.n_keep)
        out: Any = jax.lax.scan(iterate, hmc.init(flat, target), keys)
        eps, accepted = out[1]
        return jax.vmap(unravel)(eps[self.n_burn_in :]), jnp.nan_to_num(accepted).mean()
