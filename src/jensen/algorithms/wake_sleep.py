"""Wake-sleep: model and q are trained by two objectives, each of which only one of them can change."""

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ..batch import Batch
from ..errors import OptionError, explain
from ..facts import Fact, Requirement
from ..gradients.base import Bound, Estimate
from ..models.base import like_rows
from ..objectives import ELBO, IWAE
from ..tree import length, row_spec, split_trainable, stop
from .descent import Optimiser
from .machine import AbstractSideBySide, Machine

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

_DENSITY = Requirement(
    "family", Fact.LOG_PROB, "log q(z | x) is ascended at given latents", "a family whose density can be evaluated"
)
_DREAMS = Requirement(
    "model",
    Fact.GENERATIVE,
    "in the sleep phase q learns from latents and rows that the model draws",
    'LatentVariable(prior, decoder), or method="wake-wake" or "gradient"',
)


class AbstractWakeSleep(AbstractSideBySide):
    """The step that the algorithms share; they differ in the weights of the draws and in what q learns from.

    wake_phi, sleep_phi: the share of q's update that comes from rows of data, and from dreams.
    """

    wake_phi: AbstractVar[float]
    sleep_phi: AbstractVar[float]

    @abc.abstractmethod
    def weights(self, log_w: Float[Array, "K *B"]) -> Float[Array, "K *B"]:
        """Of the K draws of a row; they sum to 1."""

    def problems(self, composition) -> list[tuple[str, str, str]]:
        if composition.model.plated and self.sleep_phi and not composition.family.any_row:
            wrong = f"a q(z | x) for any x; `{type(composition.family).__name__}` (family) has one for the fitted rows"
            return [(wrong, "in the sleep phase q learns from rows that the model draws", 'method="wake-wake"')]
        if composition.model.plated:
            return []
        where = f"`{type(composition.model).__name__}` (model) has latents that all rows share"
        because = "q(z | x) learns from many pairs of a latent and its row"
        return [(f"a latent for each row; {where}", because, 'method="gradient", or method="auto"')]

    def carry(self, batch):
        return ()

    def noise(self, key, batch):
        k1, k2 = jr.split(key)
        n = length(batch.rows)
        q_spec = eqx.filter_eval_shape(self.parts.family, row_spec(batch.rows))
        return q_spec.noise(k1, (self.n_samples, n)), jr.split(k2, n) if self.sleep_phi else ()

    def estimate(self, noise, parts, batch, carry):
        wake_noise, dream_keys = noise
        diff, rest = split_trainable(parts)
        total = lambda a: (a if batch.weight is None else batch.weight * a).sum()

        def loss(diff: PyTree) -> tuple[Array, Array]:
            parts = eqx.combine(diff, rest)
            log_p, log_q, value = self._awake(wake_noise, parts, batch)
            ascended = total(log_p) + self.wake_phi * total(log_q)
            if self.sleep_phi:
                ascended = ascended + self.sleep_phi * total(self._asleep(dream_keys, parts, batch))
            return -ascended, total(value)

        grads, value = jax.grad(loss, has_aux=True)(diff)
        return Estimate(value, grads, carry)

    def _awake(self, noise: PyTree, parts: Machine, batch: Batch) -> tuple[Array, Array, Array]:
        """sum_k w_k log p(x, z_k), sum_k w_k log q(z_k | x), both at fixed draws and weights, and the bound: (B,)."""
        bound = Bound.make(parts.model, parts.family, self.objective, batch)

        def cell(model, q, x, e):
            z = stop(q.transform(e))
            return model.log_density(z, x), q.log_prob(z)

        log_p, log_q = bound.map(cell, noise)
        log_w = stop_gradient(log_p - log_q)
        w = self.weights(log_w)
        return (w * log_p).sum(0), (w * log_q).sum(0), bound.reduce(log_w)

    def _asleep(self, keys: Array, parts: Machine, batch: Batch) -> Float[Array, " B"]:
        """log q(z | x) of a dream (z, x) ~ p for each row; a dream weighs what its row does."""
        model: Any = parts.model
        z, x = stop(jax.vmap(model.sample_joint)(keys))
        x = like_rows(x, batch.rows, "the sleep phase of wake-sleep")
        dreams = Bound.make(parts.model, parts.family, self.objective, Batch(x, batch.weight))
        return dreams.log_prob(jax.tree.map(lambda a: a[None], z))[0]


class WakeSleep(AbstractWakeSleep):
    """The wake-sleep algorithm, for models from which data can be drawn (a Helmholtz machine).

    Definition: wake:  ascend log p(x, z) in the model's parameters at z ~ q(z | x), x from the data;
                sleep: ascend log q(z | x) in q's at (z, x) ~ p, that is, descend KL(p(z | x) || q) under the model's x.
    Returns:    the ELBO's estimate, nats; not what q ascends: it may fall.
    Bias:       each part is unbiased for its own objective; together they ascend no single bound.
    Cost:       n_samples evaluations a row and one dream; no gradient in z, so discrete latents cost nothing extra.
    Reference:  Hinton, Dayan, Frey and Neal (1995).  [hinton1995wake]
    """

    parts: Machine
    optimiser: Optimiser = eqx.field(static=True)
    n_samples: int = eqx.field(static=True, default=1)
    objective: ClassVar = ELBO()
    requires: ClassVar = (_DENSITY, _DREAMS)
    min_samples: ClassVar = 1
    wake_phi: ClassVar = 0.0
    sleep_phi: ClassVar = 1.0

    def weights(self, log_w):
        return jnp.full_like(log_w, 1 / log_w.shape[0])


class ReweightedWakeSleep(AbstractWakeSleep):
    """Reweighted wake-sleep (RWS); without the sleep phase also called wake-wake.

    Definition: w_k = softmax_k(log p(x, z_k) - log q(z_k | x)), z_1..K ~ q(z | x);
                wake-theta: ascend sum_k w_k log p(x, z_k);   wake-phi: ascend sum_k w_k log q(z_k | x);
                sleep-phi: ascend log q(z | x) at (z, x) ~ p. With both, q's update is their mean.
    Arguments:  wake_phi, sleep_phi: which of the two q learns from.
    Returns:    the IWAE bound's estimate with K draws, nats.
    Bias:       of the gradient of log p(x) and of KL(p(z | x) || q), O(1/K); the more draws, the better for both.
    Cost:       K evaluations a row, and one dream with sleep_phi.
    Reference:  Bornschein and Bengio (2015), equations 4, 5, 8; Le et al. (2019) for wake-wake.  [bornschein2015rws]
    """

    parts: Machine
    optimiser: Optimiser = eqx.field(static=True)
    n_samples: int = eqx.field(static=True)
    wake_phi: float = eqx.field(static=True)
    sleep_phi: float = eqx.field(static=True)
    objective: ClassVar = IWAE()
    min_samples: ClassVar = 2

    def __init__(
        self,
        parts: Machine,
        optimiser: Optimiser,
        n_samples: int = 16,
        *,
        wake_phi: bool = True,
        sleep_phi: bool = True,
    ):
        if not (wake_phi or sleep_phi):
            asked, wrong = "`ReweightedWakeSleep(wake_phi=False, sleep_phi=False)`", "q would not be trained"
            raise OptionError(explain(asked, wrong, "q learns from rows of data or from dreams", "one of them True"))
        self.parts, self.optimiser, self.n_samples = parts, optimiser, n_samples
        both = wake_phi and sleep_phi
        self.wake_phi, self.sleep_phi = (0.5, 0.5) if both else (float(wake_phi), float(sleep_phi))

    @property
    def requires(self):
        return (_DENSITY, _DREAMS) if self.sleep_phi else (_DENSITY,)

    def weights(self, log_w):
        return jax.nn.softmax(log_w, axis=0)
