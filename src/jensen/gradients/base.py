"""The seam. A gradient estimator needs draws, log q, K log-weights and a reduction of them; `Bound` gives those,
batched; estimators are formulas on (K, *plate) arrays; one driver turns their terms into value and gradients.

`Bound` is the only place that batches: it runs an unbatched function over all K x B (draw, datum) cells with ONE flat
`vmap`, so that every matrix product is two-dimensional, after all noise was drawn in one call.
"""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..batch import Batch
from ..families.base import AbstractDistribution, AbstractFamily
from ..models.base import AbstractModel
from ..objectives.base import AbstractObjective
from ..tree import length, row_axes, row_leaves, row_spec, split_trainable, stop, tile_trainable
from .plans import AbstractPlan

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class Bound(eqx.Module):
    """Model, q and objective on a batch. `plate` is (B,), the data axis, or () if the latents are global."""

    model: AbstractModel
    q: AbstractDistribution  # leaves lead with `plate`, but for those that all rows share (`tree.Shared`)
    objective: AbstractObjective
    x: PyTree  # rows leading with `plate`, or the Batch
    plate: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def make(cls, model: AbstractModel, family: AbstractFamily, objective: AbstractObjective, batch: Batch) -> "Bound":
        """q is computed once per datum, not once per draw."""
        if not model.plated:
            return cls(model, family(batch), objective, batch, ())
        n = length(batch.rows)
        if not family.reads_row:
            same: Any = tile_trainable(family, n)
            return cls(model, same, objective, batch.rows, (n,))
        axes = row_axes(eqx.filter_eval_shape(family, row_spec(batch.rows)))
        return cls(model, eqx.filter_vmap(family, out_axes=axes)(batch.rows), objective, batch.rows, (n,))

    def stop(self, *what: str) -> "Bound":
        """The same bound with the PARAMETERS of `model` and/or `q` stopped (never the signal: an estimator's own
        parameters, a temperature or a baseline, must stay differentiable)."""
        return eqx.tree_at(lambda b: [getattr(b, w) for w in what], self, [stop(getattr(self, w)) for w in what])

    def map(self, fn: Callable, *per_draw: PyTree) -> PyTree:
        """`fn(model, q, x, *draw)`, unbatched, over every cell; leaves of `per_draw` lead with (K, *plate)."""
        n_draws = length(per_draw)
        if not self.plate and n_draws == 1:  # a matrix-vector product is faster than a batch of one
            out = fn(self.model, self.q, self.x, *jax.tree.map(lambda a: a[0], per_draw))
            return jax.tree.map(lambda a: jnp.asarray(a)[None], out)
        if not self.plate:
            return jax.vmap(lambda *d: fn(self.model, self.q, self.x, *d))(*per_draw)
        (n_data,) = self.plate
        flat = lambda a: a.reshape((n_draws * n_data, *a.shape[2:]))
        spread = lambda a: flat(jnp.broadcast_to(a[None], (n_draws, *a.shape)))
        q, x = row_leaves(spread, (self.q, self.x))
        cell = lambda q, x, d: fn(self.model, q, x, *d)
        out = eqx.filter_vmap(cell, in_axes=(row_axes(q), 0, 0))(q, x, jax.tree.map(flat, per_draw))
        return jax.tree.map(lambda a: a.reshape((n_draws, n_data, *a.shape[1:])), out)

    def each(self, fn: Callable) -> PyTree:
        """`fn(q, x)` of every datum, leaves leading with `plate`."""
        if not self.plate:
            return fn(self.q, self.x)
        return eqx.filter_vmap(fn, in_axes=(row_axes(self.q), 0))(self.q, self.x)

    def draw(self, noise: PyTree) -> PyTree:
        return self.map(lambda m, q, x, e: q.transform(e), noise)

    def draw_and_log_weight(self, noise: PyTree, estimate: bool = False) -> tuple[PyTree, Array]:
        """Draws and their log-weights, log q taken from the noise where that is cheaper; with `estimate` it may be an
        unbiased estimate."""

        def cell(m, q, x, e):
            draw, log_ratio = (q.transform_and_log_estimate if estimate else q.transform_and_log_ratio)(e)
            return draw, self.objective.log_weight(m, q.latent(draw), log_ratio, x)

        return self.map(cell, noise)

    def log_weight(self, draws: PyTree) -> Array:
        """(K, *plate)."""
        weight = self.objective.log_weight
        return self.map(lambda m, q, x, d: weight(m, q.latent(d), q.log_ratio(d), x), draws)

    def log_prob(self, draws: PyTree) -> Array:
        """log q of whole draws, (K, *plate)."""
        return self.map(lambda m, q, x, d: q.log_prob(d), draws)

    def over_data(self, fn: Callable, log_w: Array) -> Array:
        """A function of K numbers, for every datum: (K, *plate) -> (..., *plate)."""
        return jax.vmap(fn, in_axes=1, out_axes=-1)(log_w) if self.plate else fn(log_w)

    def reduce(self, log_w: Array) -> Array:
        return self.over_data(self.objective.reduce, log_w)

    def exact(self) -> Array:
        """The closed-form part, shape `plate`."""
        return self.each(lambda q, x: jnp.asarray(self.objective.exact(self.model, q, x)))


class Terms(NamedTuple):
    """What an estimator returns; all of shape `plate`."""

    surrogate: Array  # its gradient in (model, family) estimates the objective's
    value: Array  # the objective's own estimate; what is reported
    own_loss: Any = 0.0  # minimised by the estimator's own parameters
    stat: Any = None  # handed to `update`, e.g. the signal for a running mean


class AbstractEstimator(eqx.Module):
    """A deterministic function of noise. Its inexact arrays are trainable: by `own_loss`, or, if
    `minimises_variance`, by the gradient's own square (its mean does not depend on them).

    requires, min_samples: for the judge.   unbiased: what conformance holds it to.   role: "path", "score", "enumerate"
    or None: how `Sitewise` may use it for one site.   supplies: facts that the family need not have, because the estimator
    makes up for them (a density ratio that it learns, in the place of log q).
    """

    requires: AbstractVar[tuple]
    min_samples: AbstractVar[int]
    unbiased: AbstractVar[bool]
    minimises_variance: AbstractVar[bool]
    role: AbstractVar[str | None]
    supplies: ClassVar[frozenset] = frozenset()

    def bind(self, latents: PyTree, rows: PyTree, key: Array) -> Self:
        """The estimator sized for `latents` (tree of ShapeDtypeStruct) and the rows of data (leading axis N; None under
        global latents): written anew by one with networks of its own."""
        return self

    def noise(self, key: Array, plan: AbstractPlan, q: AbstractDistribution, shape: tuple[int, ...]) -> PyTree:
        """Everything random, in one call, for `shape` = (K, *plate): the family's own noise, unless written anew. `q` has
        shapes only."""
        return plan.draw(key, q.noise_law(), shape)

    @abc.abstractmethod
    def terms(self, noise: PyTree, bound: Bound, carry: PyTree) -> Terms: ...

    @abc.abstractmethod
    def init(self, bound: Bound) -> PyTree:
        """The carry: state that is not trained by a gradient (running means, covariances)."""

    @abc.abstractmethod
    def update(self, carry: PyTree, stat: PyTree) -> PyTree: ...

    def findings(self, carry: PyTree) -> list[tuple[int, str]]:
        """What the verdict should know of the estimator itself, from its last carry: (0, 1 or 2: how bad it is, a
        sentence); nothing, unless written anew."""
        return []

    def problems(self, composition) -> list[tuple[str, str, str]]:
        """What facts cannot say: (wrong, because, instead) for each reason to refuse; none, unless written anew."""
        return []

    if TYPE_CHECKING:

        def signal(self, bound: Bound, log_w: Array) -> Array: ...  # only where role is "score"


class AbstractSimple(AbstractEstimator):
    """No state, no parameters: most estimators. Writes `terms` only."""

    minimises_variance: ClassVar[bool] = False

    def init(self, bound):
        return ()

    def update(self, carry, stat):
        return carry


class Parts(eqx.Module):
    """Everything that is trained; gradients have the same structure."""

    model: AbstractModel
    family: AbstractFamily
    estimator: AbstractEstimator


class Estimate(NamedTuple):
    value: Array  # nats, whole data set, the objective's own sign
    grads: Parts  # of the LOSS: descend all three
    carry: PyTree


def draw_noise(key: Array, parts: Parts, plan: AbstractPlan, batch: Batch, n_samples: int) -> PyTree:
    """Everything random in one estimate, in one call. Of `parts` and `batch` only shapes are read."""
    plated = parts.model.plated
    q_spec = eqx.filter_eval_shape(parts.family, row_spec(batch.rows) if plated else batch)
    shape = (n_samples, length(batch.rows)) if plated else (n_samples,)
    return parts.estimator.noise(key, plan, q_spec, shape)


def value_and_grad(
    key: Array,
    parts: Parts,
    objective: AbstractObjective,
    plan: AbstractPlan,
    batch: Batch,
    carry: PyTree,
    *,
    n_samples: int,
) -> Estimate:
    """One estimate from a key: `draw_noise`, then `estimate`."""
    return estimate(draw_noise(key, parts, plan, batch, n_samples), parts, objective, batch, carry)


def estimate(noise: PyTree, parts: Parts, objective: AbstractObjective, batch: Batch, carry: PyTree) -> Estimate:
    """The only driver: one estimate of the objective and of its gradient in all that is trained.

    With a latent per row, the rows' terms are summed with the batch's weights (N/n): an estimate for all the data.
    """
    plated = parts.model.plated
    total = lambda a: (a if batch.weight is None or not plated else batch.weight * a).sum()

    def loss(model_family, estimator):
        model, family = model_family
        bound = Bound.make(model, family, objective, batch)
        t = estimator.terms(noise, bound, carry)
        exact = bound.exact()
        return -objective.sense * total(t.surrogate + exact), (total(t.value + exact), t.own_loss, t.stat)

    diff, rest = split_trainable((parts.model, parts.family))
    own_diff, own_rest = split_trainable(parts.estimator)

    def both(own_diff):
        """(own loss, gradient of the objective) as functions of the estimator's own parameters."""
        own = eqx.combine(own_diff, own_rest)
        fixed = own if own.minimises_variance else stop(own)
        grads, (value, _, stat) = jax.grad(lambda d: loss(eqx.combine(d, rest), fixed), has_aux=True)(diff)
        if own.minimises_variance:
            own_loss = sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))
        else:
            own_loss = jnp.sum(loss(eqx.combine(stop(diff), rest), own)[1][1])  # XLA shares the forward pass
        return own_loss, (grads, value, stat)

    if jax.tree.leaves(own_diff):
        own_grads, (grads, value, stat) = jax.grad(both, has_aux=True)(own_diff)
    else:
        own_grads, (grads, value, stat) = own_diff, both(own_diff)[1]
    return Estimate(value, Parts(grads[0], grads[1], own_grads), parts.estimator.update(carry, stat))
