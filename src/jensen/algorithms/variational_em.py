"""Variational EM: gradient VI whose steps move q alone, then the model alone, in turn."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..errors import check_count
from ..gradients.base import Parts
from ..gradients.plans import AbstractPlan
from ..objectives.base import AbstractObjective
from .descent import Optimiser
from .gradient_vi import GradientVI


class VariationalEM(GradientVI):
    """Variational EM, for a model whose posterior is intractable: any family, objective and estimator is the E-step.

    Definition: F(q, theta) = E_q[log p_theta(x, z) - log q(z)] (or another objective);
                E: `e_steps` steps of the optimiser on q at fixed theta;   M: `m_steps` on theta at fixed q; and again.
                With the exact posterior as q it is EM (generalised: the M-step ascends, it does not maximise).
    Returns:    the objective's estimate at every step, nats.
    Bias:       none: both halves ascend the same bound, which never falls but for the noise of its estimates.
    Cost:       that of gradient VI: a step evaluates both gradients and uses one.
    Reference:  Neal and Hinton (1998); Jordan, Ghahramani, Jaakkola and Saul (1999), section 6.  [neal1998view]
    """

    e_steps: int = eqx.field(static=True)
    m_steps: int = eqx.field(static=True)

    def __init__(
        self,
        parts: Parts,
        objective: AbstractObjective,
        plan: AbstractPlan,
        optimiser: Optimiser,
        n_samples: int,
        e_steps: int = 5,
        m_steps: int = 5,
    ):
        check_count("e_steps", e_steps, "VariationalEM")
        check_count("m_steps", m_steps, "VariationalEM")
        super().__init__(parts, objective, plan, optimiser, n_samples)
        self.e_steps, self.m_steps = e_steps, m_steps

    def carry(self, batch):
        return jnp.zeros((), jnp.int32), super().carry(batch)

    def findings(self, carry):
        return super().findings(carry[1])

    def init(self, key, batch):
        params, _, carry = super().init(key, batch)
        return params, tuple(map(self.optimiser.init, _halves(params))), carry

    def step(self, noise, state, batch, scale):
        params, opts, (count, carry) = state
        e = self.estimate(noise, self.assemble(params), batch, carry)
        in_m = count % (self.e_steps + self.m_steps) >= self.e_steps
        moved = []
        for now, grads, opt, half in zip((~in_m, in_m), _halves(e.grads), opts, _halves(params), strict=True):
            ahead = self.optimiser.moved(grads, opt, half, scale)
            moved.append(jax.tree.map(lambda a, b, now=now: jnp.where(now, a, b), ahead, (half, opt)))
        (of_q, opt_q), (of_model, opt_model) = moved
        state = Parts(of_model, *of_q), (opt_q, opt_model), (count + 1, e.carry)
        return state, self.objective.sense * e.value


def _halves(parts: Any) -> tuple[Any, Any]:
    """What the E-step moves, and what the M-step moves."""
    return (parts.family, parts.estimator), parts.model
