"""Variational inference with draws that MCMC improves: the model learns from better draws, q from what they tell."""

import functools
import math
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ..facts import Fact, Requirement
from ..families.improved import Improved
from ..families.noise import dimension, from_uniforms, iid
from ..gradients.base import Bound, Estimate
from ..gradients.requirements import DIFFERENTIABLE, REPARAMETERISED
from ..hamiltonian import Chain, adapted, check_chain
from ..objectives import ELBO
from ..tree import Layout, default_float, length, row_spec, split_trainable, stop
from .descent import Optimiser
from .machine import AbstractSideBySide, Machine

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

MEMORY = 0.95  # of the running means
STILL, POOR = 0.01, 0.5  # acceptance below which a chain does not move; share of its target from which it moves well

_DENSITY = Requirement(
    "family", Fact.LOG_PROB, "log q0 is evaluated where the chain ends", "a family whose density can be evaluated"
)
_NOISE = Requirement(
    "family", Fact.TYPED_NOISE, "the centre of q0 is a control variate", "a family made of normals and uniforms"
)
_EXACT = Requirement(
    "model",
    Fact.EXACT_LOG_WEIGHT,
    "the chain must leave the posterior invariant, and a minibatch has another one",
    'batch_size=None (all rows at every step), or method="gradient"',
)


class Carry(NamedTuple):
    """log_step: of the chain.   Running means over steps: acceptance; baseline: f(z_t) less the centre's value;
    contrast: f(z_t) - f(z_0), nats a row."""

    log_step: Float[Array, ""]
    acceptance: Float[Array, ""]
    baseline: Float[Array, ""]
    contrast: Float[Array, ""]


class Seen(NamedTuple):
    """What one draw gives. `path`, `log_q_start`, `log_q_end` carry the gradient of q0, `log_p_end` that of the model."""

    path: Array
    log_q_start: Array
    log_q_end: Array
    log_p_end: Array
    f_start: Array
    f_end: Array
    centre: Array
    acceptance: Array


class AbstractImproving(AbstractSideBySide):
    """The step that the algorithms share; they differ in what q0 ascends.

    contrast: the weight alpha of the contrastive part.
    """

    chain: AbstractVar[Chain]
    step_size: AbstractVar[float]
    target: AbstractVar[float]
    contrast: AbstractVar[float]
    objective: ClassVar = ELBO()
    requires: ClassVar = (_DENSITY, REPARAMETERISED, _NOISE, DIFFERENTIABLE, _EXACT)
    min_samples: ClassVar[int] = 1

    def carry(self, batch):
        number = lambda value: jnp.asarray(value, default_float())
        return Carry(number(math.log(self.step_size)), number(self.target), number(0.0), number(0.0))

    def noise(self, key, batch):
        plated = self.parts.model.plated
        q = eqx.filter_eval_shape(self.parts.family, row_spec(batch.rows) if plated else batch)
        shape = (self.n_samples, length(batch.rows)) if plated else (self.n_samples,)
        law = {"start": q.noise_law(), **self.chain.noise_law(Layout(self.parts.model.latents).size)}
        return iid(key, law, shape)

    def estimate(self, noise, parts, batch, carry):
        diff, rest = split_trainable(parts)
        weight = batch.weight if parts.model.plated else None
        total = lambda a: (a if weight is None else weight * a).sum()
        mean = lambda a: (a.mean(0) if weight is None else (weight * a).mean(0) / weight.mean()).mean()
        cell = functools.partial(self._cell, jnp.exp(carry.log_step))

        def loss(diff: PyTree) -> tuple[Array, Seen]:
            parts = eqx.combine(diff, rest)
            seen = Bound.make(parts.model, parts.family, self.objective, batch).map(cell, noise)
            of_q = seen.path
            if self.contrast:
                of_q = of_q + self.contrast * (seen.log_q_end - self._signal(seen, carry) * seen.log_q_start)
            return -total((of_q + seen.log_p_end).mean(0)), seen

        grads, seen = jax.grad(loss, has_aux=True)(diff)
        new = {
            "acceptance": seen.acceptance, "baseline": seen.f_end - seen.centre, "contrast": seen.f_end - seen.f_start,
        }  # fmt: skip
        blended = {k: MEMORY * getattr(carry, k) + (1 - MEMORY) * mean(v) for k, v in new.items()}
        log_step = adapted(carry.log_step, mean(seen.acceptance), self.target)
        return Estimate(total(seen.f_start.mean(0)), grads, Carry(log_step, **blended))

    def _cell(self, step_size, model, q, x, noise) -> Seen:
        """One draw of one row. The chain's first gradient is also that of the ELBO's path (sticking the landing)."""
        still, start = stop(model), stop(q)
        layout = Layout(model.latents)
        log_q = lambda q, u: q.log_prob(layout.unravel(u))
        log_p = lambda model, u: model.log_density(layout.unravel(u), x)
        u0 = layout.ravel(q.transform(noise["start"]))
        begin = stop_gradient(u0)
        moved = self.chain(lambda u: log_p(still, u), begin, noise, step_size)
        score = moved.start.grad - jax.grad(lambda u: log_q(start, u))(begin)
        end = stop_gradient(moved.end.u)
        log_q_start, log_q_end = log_q(q, begin), log_q(q, end)
        f_start, f_end = moved.start.log_p - log_q_start, moved.end.log_p - log_q_end
        centre = jnp.zeros_like(f_end)
        if self.contrast and self.n_samples == 1:
            law = start.noise_law()
            middle = layout.ravel(start.transform(from_uniforms(law, jnp.full(dimension(law), 0.5, default_float()))))
            centre = log_p(still, middle) - log_q(start, middle)
        path = jnp.vdot(u0, stop_gradient(score))
        stopped = stop_gradient((f_start, f_end, centre, moved.acceptance))
        return Seen(path, log_q_start, log_q_end, log_p(model, end), *stopped)

    def _signal(self, seen: Seen, carry: Carry) -> Float[Array, "K *B"]:
        """f(z_t) - C, C independent of the draw that it meets."""
        k = seen.f_end.shape[0]
        if k == 1:
            c = seen.centre + carry.baseline
        else:
            c = (seen.f_end.sum(0) - seen.f_end) / (k - 1)
        return seen.f_end - c

    def fitted(self, params, carry):
        parts = self.assemble(params)
        return Machine(parts.model, Improved(parts.family, parts.model, self.chain, jnp.exp(carry.log_step)))

    def findings(self, carry):
        rate, step = float(carry.acceptance), math.exp(float(carry.log_step))
        n, leaps = self.chain.n_steps, self.chain.n_leapfrog
        made = f"{n} HMC step{'s' * (n > 1)} of {leaps} leapfrog step{'s' * (leaps > 1)}, size {step:.3g}"
        if not rate >= STILL:
            remedy = "the draws are q0's own. Give a smaller step_size"
            return [(2, f"The chains do not move: {made} have acceptance {rate:.1%}; {remedy}.")]
        each = " a row" if self.parts.model.plated else ""
        gain = f"they raise log p(x, z) - log q0(z) by {float(carry.contrast):.2f} nats{each}"
        level = 0 if rate >= POOR * self.target else 1
        return [
            (level, f"The draws of q0 were moved by {made}, acceptance {rate:.0%} (sought: {self.target:.0%}); {gain}.")
        ]


class Hoffman(AbstractImproving):
    """q by the ELBO, the model by draws that MCMC improves ("implicit + KL").

    Definition: z_0 ~ q0(z | x), z_t = t steps of HMC on p(x, z) from z_0.
                q0 ascends E[log p(x, z_0) - log q0(z_0)]; the model ascends E[log p(x, z_t)].
    Arguments:  n_samples: chains a row.   chain: steps, leapfrog steps (1: MALA).   step_size: at the start; adapted to
                the acceptance `target`.
    Returns:    the ELBO's estimate of q0, nats, a lower bound of log p(x); the model does not ascend it, so it may fall.
    Bias:       none for q0; for the model that of chains too short to forget q0, none as t grows.
    Cost:       n_steps * n_leapfrog + 1 gradients in z, and one in the model's parameters, a draw.
    Reference:  Hoffman (2017), section 3.  [hoffman2017dlgm]
    """

    parts: Machine
    optimiser: Optimiser = eqx.field(static=True)
    n_samples: int = eqx.field(static=True)
    chain: Chain
    step_size: float = eqx.field(static=True)
    target: float = eqx.field(static=True)
    contrast: ClassVar[float] = 0.0

    def __init__(
        self, parts: Machine, optimiser: Optimiser, n_samples: int = 1, *, n_steps: int = 8, n_leapfrog: int = 5,
        step_size: float = 0.05, target: float = 0.9,
    ):  # fmt: skip
        asked = f"`Hoffman(n_steps={n_steps}, n_leapfrog={n_leapfrog}, step_size={step_size}, target={target})`"
        check_chain(asked, n_steps, n_leapfrog, step_size, target)
        self.parts, self.optimiser, self.n_samples = parts, optimiser, n_samples
        self.chain, self.step_size, self.target = Chain(n_steps, n_leapfrog), float(step_size), float(target)


class VCD(AbstractImproving):
    """Variational contrastive divergence (VCD): q0 is also told where the chain went.

    Definition: z_0 ~ q0, z_t as in `Hoffman`, q_t the law of z_t, f(z) = log p(x, z) - log q0(z):
                L = KL(q0 || p) - KL(q_t || p) + KL(q_t || q0) = -E_q0[f] + E_qt[f] >= 0, and 0 where q0 = p(z | x): the
                chain lowers the KL, and log q_t cancels. As t grows it becomes KL(q0 || p) + KL(p || q0).
                L_alpha = KL(q0 || p) + alpha [KL(q_t || q0) - KL(q_t || p)] = (1 - alpha) KL(q0 || p) + alpha L.
                q0 ascends -L_alpha:  grad E_q0[f] - alpha (f(z_t) - C) grad log q0(z_0) + alpha grad log q0(z_t),
                for grad E_qt[f] = E[f(z_t) grad log q0(z_0)] - E[grad log q0(z_t)]: q_t depends on q0 through the law of z_0
                alone. The model ascends E[log p(x, z_t)].
                C: with n_samples > 1 the mean of the other draws; with one, f at q0's centre (every noise at its median)
                plus a running mean of what f(z_t) exceeds that by: a control variate of its own for each row.
    Arguments:  as for `Hoffman`; alpha: in (0, 1].
    Returns:    the ELBO's estimate of q0, nats, a lower bound of log p(x). Neither ascends it (q0 becomes wider than the
                ELBO would have it): it may fall.
    Bias:       none for q0's own objective; the model's as in `Hoffman`.
    Cost:       that of `Hoffman`, and with n_samples=1 one evaluation more.
    Reference:  Ruiz and Titsias (2019), equations 5-11.  [ruiz2019contrastive]
    """

    parts: Machine
    optimiser: Optimiser = eqx.field(static=True)
    n_samples: int = eqx.field(static=True)
    chain: Chain
    step_size: float = eqx.field(static=True)
    target: float = eqx.field(static=True)
    contrast: float = eqx.field(static=True)

    def __init__(
        self, parts: Machine, optimiser: Optimiser, n_samples: int = 1, *, n_steps: int = 8, n_leapfrog: int = 5,
        step_size: float = 0.05, target: float = 0.9, alpha: float = 1.0,
    ):  # fmt: skip
        asked = (
            f"`VCD(n_steps={n_steps}, n_leapfrog={n_leapfrog}, step_size={step_size}, target={target}, alpha={alpha})`"
        )
        check_chain(asked, n_steps, n_leapfrog, step_size, target, alpha)
        self.parts, self.optimiser, self.n_samples = parts, optimiser, n_samples
        self.chain, self.step_size, self.target = Chain(n_steps, n_leapfrog), float(step_size), float(target)
        self.contrast = float(alpha)
