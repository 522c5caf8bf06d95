"""Global latents shared by all rows, and a latent for each row: what a subsampled plate needs."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array

from ..batch import Batch
from ..errors import ModelError, explain
from ..facts import Fact
from ..tree import length, replaced, row_spec
from .base import OF_ONE_LAW, AbstractDistribution, AbstractFamily
from .mean_field import MeanField
from .noise import is_law
from .table import Table


class GlobalLocal(AbstractFamily):
    """q(g) prod_i q(z_i | x_i) on a minibatch.

    Definition: log q of the draws is unscaled (what a score differentiates); the log-weight subtracts
                log q(g) + sum_i (N/n) log q(z_i), the minibatch estimate of the whole.
    Arguments:  top: family over the global latents.   local: family over one row's latents: `Table()` or `Amortised`.
    Reference:  Hoffman, Blei, Wang and Paisley (2013), section 2.  [hoffman2013svi]
    """

    top: AbstractDistribution = eqx.field(default_factory=MeanField)
    local: AbstractFamily = eqx.field(default_factory=Table)

    @property
    def facts(self):
        shared = frozenset(self.top.facts) & frozenset(self.local.facts)
        return shared - OF_ONE_LAW - {Fact.MOMENTS, Fact.ENUMERABLE, Fact.PRODUCT} | {Fact.LOCAL}

    def kind_of(self, site):
        return self.top.kind_of(site)

    def bind(self, latents, rows, key):
        """`latents` is the pair (global, local): the local ones those of one row."""
        if rows is None or not (isinstance(latents, tuple) and len(latents) == 2):
            raise ModelError(
                explain(
                    "`GlobalLocal` for a model without a plate of rows",
                    "its latents are all of one kind",
                    "it is a product of q(global) and one q for each row's own latents",
                    "MeanField(), or Amortised() for a model with a latent for each row",
                )
            )
        for part in (self.top, self.local):
            if Fact.LOG_PROB not in part.facts:
                wrong = f"`{type(part).__name__}` does not tell log q of a latent"
                because = "a draw is the latents themselves, and log q is summed over rows with their weights"
                raise ModelError(
                    explain("`GlobalLocal(...)`", wrong, because, "an explicit family: FullRank(), RealNVP()")
                )
        k1, k2 = jr.split(key)
        return replaced(self, top=self.top.bind(latents[0], None, k1), local=self.local.bind(latents[1], rows, k2))

    def __call__(self, x: Batch) -> "OnBatch":
        if x.rows is None:
            raise ModelError(
                explain(
                    "`GlobalLocal` without rows",
                    "the model has no plate of rows",
                    "local latents belong to rows",
                    "MeanField()",
                )
            )
        rows: Any = eqx.filter_vmap(self.local)(x.rows)
        return OnBatch(self.top, rows, x.weight)


def _has_shape(leaf) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


class OnBatch(AbstractDistribution):
    """q on one minibatch; a draw is one dictionary of globals, and locals with a leading row axis."""

    top: AbstractDistribution
    rows: AbstractDistribution  # every leaf leads with B
    weight: Array | None
    facts: ClassVar = frozenset()

    def kind_of(self, site):
        return self.top.kind_of(site)

    def bind(self, latents, rows, key):
        return self

    def noise_law(self):
        arrays, rest = eqx.partition(self.rows, _has_shape)
        n, one = length(arrays), eqx.combine(row_spec(arrays), rest)
        widen = lambda law: type(law)((n, *law.shape))
        return self.top.noise_law(), jax.tree.map(widen, one.noise_law(), is_leaf=is_law)

    def _locals(self, fn, *args):
        return eqx.filter_vmap(fn)(self.rows, *args)

    def _weighted(self, values: Array) -> Array:
        return (values if self.weight is None else self.weight * values).sum()

    def transform(self, noise):
        return {**self.top.transform(noise[0]), **self._locals(lambda q, e: q.transform(e), noise[1])}

    def transform_and_log_ratio(self, noise):
        top, value = self.top.transform_and_log_ratio(noise[0])
        local, values = self._locals(lambda q, e: q.transform_and_log_ratio(e), noise[1])
        return {**top, **local}, value + self._weighted(values)

    def _split(self, draw):
        names = set(jax.eval_shape(lambda: self.top.sample(jr.key(0))))
        return {n: draw[n] for n in draw if n in names}, {n: draw[n] for n in draw if n not in names}

    def log_prob(self, draw):
        top, local = self._split(draw)
        return self.top.log_prob(top) + self._locals(lambda q, z: q.log_prob(z), local).sum()

    def latent(self, draw):
        return draw

    def log_ratio(self, draw):
        top, local = self._split(draw)
        return self.top.log_ratio(top) + self._weighted(self._locals(lambda q, z: q.log_ratio(z), local))

    def entropy(self):
        return self.top.entropy() + self._weighted(self._locals(lambda q: q.entropy()))
