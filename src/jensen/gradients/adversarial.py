"""The density ratio of an implicit q to a known law, by a network that is trained to tell their draws apart."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..nets import MLP
from ..tree import Frozen, Layout, default_float, length, replaced, row_spec
from .base import AbstractEstimator, Terms
from .contrast import OF_DRAWS, contrasted, flat_draws, latent_layout, log_weights, whitening

UNABLE = 2 * math.log(2)  # the discriminator's loss where it cannot tell the two apart
SATURATED = 0.1  # of it
MEMORY = 0.98  # of the running loss


class Discriminator(NamedTuple):
    """The carry: the network's arrays, its optimiser's state, and the running mean of its loss."""

    params: PyTree
    state: PyTree
    loss: Float[Array, ""]


class Adversarial(AbstractEstimator):
    """Adversarial variational Bayes (AVB): log q by a discriminator T between q and a contrast r.

    Definition: T minimises E_q softplus(-T) + E_r softplus(T), at best T = log q - log r; then
                grad ELBO = grad E_q[log p(x, z) - log r(z) - T(z)], path gradient with T and r held fixed.
                contrast="adaptive": r is the Gaussian with the moments of the step's draws of q (for each row its own), and
                T sees z in coordinates where these are 0 and I, with the row beside it.
                contrast="prior": r is the prior of a `LatentVariable`: prior-contrastive, log p(x | z) - T(x, z).
    Arguments:  contrast: of these.   hidden: widths of T.   steps: of T's Adam a step of q, each on K fresh draws.
                rate: its step size, > 0.
    Carry:      T and its optimiser; both are of this estimator and not trained by the objective.
    Value:      the log-weights with this log q: an ESTIMATE of the ELBO, no bound: too high wherever T lags behind q.
    Bias:       O(1), as large as T's error. Where draws of q and r are told apart without fail T is saturated: it grows
                without end, and is no ratio. That is said in the verdict; a contrast closer to q, as "adaptive" is, helps.
    Cost:       K log-density gradients, (1 + steps) K draws of q, and 2 K steps evaluations of T.
    Reference:  Mescheder, Nowozin and Geiger (2017), sections 3 and 4; Huszar (2017).  [mescheder2017avb]
    """

    net: Any  # Frozen: starting values
    kind: Any = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    size: int = eqx.field(static=True)
    requires: ClassVar = OF_DRAWS
    min_samples: ClassVar = 8
    unbiased: ClassVar = False
    minimises_variance: ClassVar = False
    role: ClassVar = None
    supplies: ClassVar = frozenset({Fact.LOG_RATIO})

    def __init__(
        self,
        contrast: Literal["adaptive", "prior"] = "adaptive",
        *,
        hidden: Sequence[int] = (64, 64),
        steps: int = 5,
        rate: float = 2e-3,
        net: Any = None,
        size: int = 0,
    ):
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1 or not rate > 0:
            asked, because = f"`Adversarial(steps={steps!r}, rate={rate!r})`", "the discriminator is trained by them"
            raise OptionError(explain(asked, "one is not positive", because, "steps=5, rate=2e-3"))
        self.kind = contrasted("Adversarial", contrast).kind
        self.hidden, self.steps, self.rate = tuple(hidden), steps, float(rate)
        self.net, self.size = net, size

    def bind(self, latents, rows, key):
        size = Layout(latents).size
        n_row = 0 if rows is None else sum(a.size for a in jax.tree.leaves(row_spec(rows)))
        net = MLP(key, size + n_row, self.hidden, 1, activation="elu")
        net = eqx.tree_at(lambda m: m.weights[-1], net, jnp.zeros_like(net.weights[-1]))
        return replaced(self, net=Frozen(net), size=size)

    def problems(self, composition):
        return contrasted("Adversarial", self.kind).problems(composition, "Adversarial")

    def init(self, bound):
        params = eqx.filter(self.net.value, eqx.is_inexact_array)
        return Discriminator(params, self._adam().init(params), jnp.asarray(UNABLE, default_float()))

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.rate)

    def noise(self, key, plan, q, shape):
        k, plate = shape[0], shape[1:]
        law = contrasted("Adversarial", self.kind).law(self.size)
        one, two = jax.random.split(key)
        mine = plan.draw(one, q.noise_law(), ((1 + self.steps) * k, *plate))
        return mine, plan.draw(two, law, (self.steps * k, *plate))

    def terms(self, noise, bound, carry):
        layout, beside = latent_layout(bound), contrasted("Adversarial", self.kind)
        k = length(noise[0]) // (1 + self.steps)
        draws = flat_draws(bound, noise[0], layout)
        white = whitening(draws)
        u = white.to(draws)
        y = beside.draws(bound, noise[1], layout, white)
        rows = _flat_rows(bound)
        score = jax.value_and_grad(lambda u, row: self._score(carry.params, u, row))
        log_ratio, slope = jax.vmap(jax.vmap(score))(_cells(u[:k]), _spread(rows, k, bound))
        shape = u[:k].shape
        level, slope = beside.add(white, u[:k], log_ratio.reshape(shape[:-1]), slope.reshape(shape))
        first = jax.tree.map(lambda a: a[:k], noise[0])
        value = bound.reduce(log_weights(bound, first, layout, level, slope, beside.kind == "prior"))
        return Terms(value, value, stat=(u[k:], y, rows))

    def _score(self, params: PyTree, u: Array, row: Array) -> Array:
        return eqx.combine(params, self.net.value)((u, row))[0]

    def update(self, carry, stat):
        u, y, rows = stat
        blocks = lambda a: a.reshape(self.steps, -1, *a.shape[1:])

        def loss(params, u, y):
            row = jnp.broadcast_to(rows, (*u.shape[:-1], rows.shape[-1]))
            scores = lambda z: jnp.vectorize(lambda z, r: self._score(params, z, r), signature="(d),(f)->()")(z, row)
            return jax.nn.softplus(-scores(u)).mean() + jax.nn.softplus(scores(y)).mean()

        def step(c, data):
            value, grads = jax.value_and_grad(loss)(c.params, *data)
            updates, state = self._adam().update(grads, c.state, c.params)
            params = optax.apply_updates(c.params, updates)
            return Discriminator(params, state, MEMORY * c.loss + (1 - MEMORY) * value), None

        return jax.lax.scan(step, carry, (blocks(u), blocks(y)))[0]

    def findings(self, carry):
        loss = float(carry.loss)
        words = f"The discriminator's loss ended at {loss:.2f} ({UNABLE:.2f}: it cannot tell q from its contrast)"
        if loss > SATURATED * UNABLE:
            return [(0, f"{words}.")]
        remedy = 'Use contrast="adaptive", fewer steps, or SpectralStein()'
        return [(1, f"{words}: it is saturated, so that its estimate of log q is no density ratio. {remedy}.")]


def _flat_rows(bound: Any) -> Float[Array, "*P F"]:
    """What T sees beside z: each datum's row; of length 0 under global latents."""
    if not bound.plate:
        return jnp.zeros(0, default_float())
    n = bound.plate[0]
    leaves = [jnp.asarray(a, default_float()).reshape(n, -1) for a in jax.tree.leaves(bound.x)]
    return jnp.concatenate(leaves, 1)


def _cells(u: Float[Array, "K *P D"]) -> Float[Array, "K P D"]:
    return u.reshape(u.shape[0], -1, u.shape[-1])


def _spread(rows: Array, k: int, bound: Any) -> Float[Array, "K P F"]:
    return jnp.broadcast_to(
        rows.reshape(-1, rows.shape[-1]) if bound.plate else rows[None], (k, *(bound.plate or (1,)), rows.shape[-1])
    )
