"""Augment-REINFORCE-swap-merge."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from ..facts import Fact
from ..families.noise import Uniform
from .alternatives import AbstractAlternatives
from .arm import PAIRED
from .requirements import FRESH, LAYERS


class ARSM(AbstractAlternatives):
    """Augment-REINFORCE-swap-merge (ARSM), for categorical latents.

    Definition: z_v = argmin_c pi_vc exp(-phi_vc), pi_v uniform on the simplex; F_cj = f(z) with entries c and j of every
                pi_v swapped. dL/dphi_vc = E sum_j (F_cj - mean_m F_mj) (1/C - pi_vj).
    Derivation: the race has the score 1 - C pi_vc (given pi, E[sum of the exponentials] = C). A swap leaves the law of
                all pi_v as it is, and puts pi_vj in place c: E[F_cj (1 - C pi_vj)] is the gradient for every j; it is
                averaged over j. It sums to zero over c, hence the baseline.
    Bias:       none.   Cost: 1 + C (C - 1) / 2 evaluations a draw, for any number of variables.
    Reference:  Yin, Yue and Zhou (2019), theorem 1.  [yin2019arsm]
    """

    requires: ClassVar = (LAYERS, FRESH, PAIRED)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None
    same_law: ClassVar = True

    def problems(self, composition):
        facts = composition.family.facts
        if Fact.LAYERS not in facts or Fact.BINARY not in facts:
            return []
        wrong = f"categorical variables; those of `{type(composition.family).__name__}` (family) are binary"
        return [(wrong, "`ARSM` swaps the categories of a variable", "DisARM()")]

    def noise(self, key, plan, q, shape):
        logits = eqx.filter_eval_shape(lambda q: q.next_logits(()), q)
        return plan.draw(key, Uniform(logits.shape), shape)

    def alternatives(self, q, noise):
        logits = q.next_logits(())
        n = logits.shape[-1]
        c, j = np.triu_indices(n, 1)
        swaps = np.tile(np.arange(n), (len(c), 1))
        rows = np.arange(len(c))
        swaps[rows, c], swaps[rows, j] = j, c
        times = -jnp.log(noise)
        pi = times / times.sum(-1, keepdims=True)
        won = lambda p: jax.nn.one_hot(jnp.argmin(jnp.log(p) - stop_gradient(logits), -1), n, dtype=logits.dtype)
        others = won(jnp.moveaxis(pi[..., swaps], -2, 0))
        centred, lead = logits - logits.mean(-1, keepdims=True), 1 / n - pi  # the baseline, moved to the logits
        weights = lead[..., j] * centred[..., c] + lead[..., c] * centred[..., j]
        return q.unlayered((won(pi),)), q.unlayered((others,)), weights.reshape(-1, len(c)).sum(0)
