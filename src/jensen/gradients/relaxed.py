"""What the estimators with relaxed variables share: their noise, chains of layers, the unbiased control variate."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..families.base import AbstractDistribution
from ..families.relaxation import relaxation_of
from ..tree import stop
from .base import AbstractEstimator, Bound, Terms
from .baselines import Mean
from .plans import AbstractPlan

DECAY = 0.9  # of the running mean of what a control variate leaves


class AbstractRelaxed(AbstractEstimator):
    """An estimator with one uniform for each logit, layer by layer; hard and relaxed variables are made of the same."""

    def noise(self, key: Array, plan: AbstractPlan, q: AbstractDistribution, shape: tuple[int, ...]) -> PyTree:
        layers = eqx.filter_eval_shape(lambda q: q.layers(q.sample(jr.key(0))), q)
        return plan.draw(key, tuple(relaxation_of(q).law(a.shape) for a in layers), shape)


def not_relaxable(composition: Any) -> list[tuple[str, str, str]]:
    """Sites that the model takes as integers, where it tells: no derivative reaches them."""
    kinds = getattr(composition.model, "site_kinds", {})
    taken = getattr(composition.model, "relaxable", kinds)
    integral = sorted(site for site, kind in kinds.items() if kind != "real" and site not in taken)
    if not integral:
        return []
    wrong = f"a model that takes values between the states of {integral}; `{type(composition.model).__name__}` does not"
    return [(wrong, "the model is differentiated at relaxed values", "LeaveOneOut()")]


def chain(
    q: Any, noise: tuple[Array, ...], value: Callable, before: tuple = ()
) -> tuple[tuple, list[Array], list[Array]]:
    """(layers, their z, their logits): the layers after `before`, each value(z, logits) with the logits of those earlier."""
    kind = relaxation_of(q)
    layers, zs, logits = before, [], []
    for u in noise[len(before) :]:
        logits.append(q.next_logits(layers))
        zs.append(kind.reparameterise(logits[-1], u))
        layers = (*layers, value(zs[-1], logits[-1]))
    return layers, zs, logits


def draw_log_weight(objective: Any, model: Any, q: Any, x: Any, layers: tuple) -> Array:
    """The log-weight of one draw given by its layers, hard or relaxed."""
    draw = q.unlayered(layers)
    return objective.log_weight(model, q.latent(draw), q.log_ratio(draw), x)


class AbstractControlled(AbstractRelaxed):
    """A relaxed control variate, and the running mean of what its centred part leaves of the signal as baseline."""

    def init(self, bound):
        return Mean.start()

    def update(self, carry, stat):
        return Mean.update(carry, stat, DECAY)


def controlled_score(bound: Bound, noise: PyTree, temperature: Array | float, control: Callable, carry: Any) -> Terms:
    """The score function with control(model, q, x, layers) = (centred part, rest), at relaxed values, as control variate.

    Definition: sum_l (f(b) - c_l(z~_l) - m) d log q(b_l | b_<l) + c_l'(z_l) (dz_l - dz~_l), differentials in the logits of
                layer l at b_<l; c_l: both parts of `control` at b_<l, the relaxed z_l, and relaxed layers after it; m: the
                running mean over earlier steps (`carry`) of f less the centred part. A rest with a constant of its own
                learns the best baseline, which is not the mean; a mean of it too would follow that constant for ever.
    Derivation: c_l is a function of z_l and of noise independent of it, and its mean over z_l is that over b_l and
                z~_l | b_l: the terms in c_l are the difference of one derivative written twice. This holds for any v
                in z~ = given(b, v) that is uniform and independent of b. We take the v that makes z~ = z: one evaluation
                then serves both, and the path terms cancel but for what `AbstractRelaxation.pull` gives.
    The parameters of q and of the model act on c as constants: of c only the path counts.
    """
    fixed, baseline = bound.stop("model", "q"), Mean.of(carry)

    def cell(m, q, x, noise):
        """f(b), live in the model; b; and for each layer the derivative in its logits."""
        kind, still = relaxation_of(q), stop(m)
        b, zs, logits = chain(q, noise, lambda z, a: kind.hard(z))
        f = draw_log_weight(bound.objective, m, q, x, b)
        soften = lambda z, a=None: kind.soft(z, temperature)

        def signal(l):
            def c(z):
                centred, rest = control(still, q, x, chain(q, noise, soften, (*b[:l], soften(z)))[0])
                return centred + rest, centred

            (value, centred), slope = jax.value_and_grad(c, has_aux=True)(zs[l])
            score, f_still = b[l] - kind.mean(logits[l]), stop_gradient(f)
            return (f_still - value - baseline) * score + kind.pull(logits[l], zs[l], slope), f_still - centred

        signals, left = zip(*(signal(l) for l in range(q.n_layers)), strict=True)
        return f, b, signals, sum(left) / len(left)

    live = eqx.tree_at(lambda b: b.model, fixed, bound.model)
    log_w, b, signals, left = live.map(cell, noise)
    value = bound.reduce(log_w)
    # sum_l signal_l . logits_l has the gradient signal_l in the logits, and flows on into networks and encoders
    along = lambda m, q, x, b, s: sum((a * q.next_logits(b[:l])).sum() for l, a in enumerate(s))
    return Terms(value + bound.map(along, b, signals).mean(0), value, stat=stop_gradient(left.mean()))
