"""Score function with a first-order Taylor expansion as control variate."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from ..families.relaxation import mean_field_pass, relaxation_of
from .base import AbstractEstimator, Terms
from .baselines import Mean
from .requirements import DIFFERENTIABLE, FRESH, LAYERS, LINEAR, SCORE


class MuProp(AbstractEstimator):
    """MuProp: the log-weight's tangent plane at the mean-field point is the baseline, and its mean is added back.

    Definition: grad = 1/K sum_k sum_l [ (f(h) - f(m) - f_l'(m).(h_l - m_l) - c) d log q(h_l | h_<l) + f_l'(m).d mu_l(h_<l) ],
                m: the layers' means, each from the means before it; mu_l: the mean of layer l given the drawn ones
                before it; c: the running mean of what is left of the signal.
    Arguments:  decay: of the running mean.
    Derivation: E[f_l' . h_l d log q_l | h_<l] = f_l' . d mu_l, with the drawn h_<l on both sides: no bias in any layer.
    Bias:       none.   Cost: K evaluations, and one evaluation with its gradient in z a datum.
    Reference:  Gu, Levine, Sutskever and Mnih (2016), equations 7-10.  [gu2016muprop]
    """

    decay: float = eqx.field(static=True, default=0.9)
    requires: ClassVar = (SCORE, LAYERS, DIFFERENTIABLE, LINEAR, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    minimises_variance: ClassVar = False
    role: ClassVar = None

    def init(self, bound):
        return Mean.start()

    def update(self, carry, stat):
        return Mean.update(carry, stat, self.decay)

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        fixed = bound.stop("model", "q")
        means = jax.tree.map(lambda a: a[None], fixed.each(lambda q, x: q.unlayered(mean_field_pass(q))))
        at_mean, pull = jax.vjp(lambda z: fixed.log_weight(z), means)
        (slope,) = pull(jnp.ones_like(at_mean))

        def tangent(m, q, x, h, mean, slope):
            """For each layer: the linear part at the draw, stopped; its expectation, live in the logits."""
            drawn, kind = q.layers(h), relaxation_of(q)
            triples = list(zip(drawn, q.layers(mean), q.layers(slope), strict=True))
            linear = jnp.stack([(s * (b - c)).sum() for b, c, s in triples])
            mu = [kind.mean(q.next_logits(drawn[:l])) for l in range(len(drawn))]
            expected = sum((s * m).sum() for m, (_, _, s) in zip(mu, triples, strict=True))
            return jnp.stack(q.layer_log_probs(h)), stop_gradient(linear), expected

        k = log_w.shape[0]
        spread = jax.tree.map(lambda a: jnp.broadcast_to(a, (k, *a.shape[1:])), (means, slope))
        log_q, linear, expected = bound.map(tangent, draws, *jax.tree.map(stop_gradient, spread))
        residual = stop_gradient((log_w - at_mean)[..., None]) - linear
        value = bound.reduce(log_w)
        score = ((residual - Mean.of(carry)) * log_q).sum(-1) + expected
        return Terms(value + score.mean(0), value, stat=residual.mean())
