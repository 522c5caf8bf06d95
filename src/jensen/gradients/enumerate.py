"""Exact gradient by enumeration."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ModelError, explain
from ..facts import Fact, Requirement
from ..families.discrete import MAX_STATES
from .base import AbstractSimple, Terms

_LISTED = Requirement("family", Fact.ENUMERABLE, "every state of q is visited", "LeaveOneOut(), or Pathwise()")


class Enumerate(AbstractSimple):
    """Exact expectation over all states of a discrete q.

    Definition: E_q[g(l)] = sum over K-tuples of states prod_k q(z_k) g(l_1..l_K); a linear objective needs single states.
    Bias:       none, and no variance.   Cost: S evaluations for S states; S^K values of g for a nonlinear objective.
    Raises:     ModelError above 2^16 states or tuples.
    """

    requires: ClassVar = (_LISTED,)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = "enumerate"

    def noise(self, key, plan, q, shape):
        return jnp.zeros((shape[0], 0))  # nothing is random; only K matters

    def terms(self, noise, bound, carry):
        n_draws = noise.shape[0]
        support = bound.each(lambda q, x: q.support())
        states = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), support) if bound.plate else support
        log_q, log_w = bound.log_prob(states), bound.log_weight(states)
        if Fact.LINEAR in bound.objective.facts:
            value = (jnp.exp(log_q) * log_w).sum(0)
            return Terms(value, value)
        n_states = log_q.shape[0]
        if n_states**n_draws > MAX_STATES:
            raise ModelError(
                explain(
                    f"`Enumerate` of `{type(bound.objective).__name__}` with {n_draws} draws of {n_states} states",
                    f"there are {n_states**n_draws:.3g} tuples, more than {MAX_STATES}",
                    "a nonlinear objective is an expectation over all K-tuples",
                    "LeaveOneOut(), or fewer draws",
                )
            )
        tuples = np.array(list(itertools.product(range(n_states), repeat=n_draws)))
        expectation = lambda pair: (
            jnp.exp(pair[:, 0][tuples].sum(1)) * jax.vmap(bound.objective.reduce)(pair[:, 1][tuples])
        ).sum()
        both = jnp.stack([log_q, log_w], 1)
        value = jax.vmap(expectation, in_axes=-1)(both) if bound.plate else expectation(both)
        return Terms(value, value)
