"""Amortised inference: an encoder gives the parameters of q for each datum."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..errors import ModelError, explain
from ..nets import MLP
from ..tree import Frozen, replaced, row_spec, split_shared, split_trainable
from .base import UNSIZED, AbstractDistribution, AbstractFamily
from .mean_field import MeanField


class Amortised(AbstractFamily):
    """q(z | x) = distribution whose parameters an encoder computes from x.

    Definition: parameters(x) = parameters of `distribution` as given + encoder(x).
    Arguments:  distribution: any sized or unsized distribution; its starting values are the encoder's offset
                (default `MeanField(scale=1.0)`).
                encoder: any Equinox module `x -> array of n parameters`, or `x -> tuple of arrays`, one a parameter of
                the distribution; left out, an MLP on the flattened row.   hidden, activation: of that MLP.
    Facts:      those of the distribution.
                What the distribution marks as `Shared` is trained for all rows at once.
    Cost:       one encoder call a datum, whatever the number of draws.
    Reference:  Kingma and Welling (2014); Rezende, Mohamed and Wierstra (2014).  [kingma2014vae]
    """

    distribution: Frozen[AbstractDistribution]
    shared: PyTree  # what of the distribution is trained for all rows at once
    encoder: Callable
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        distribution: AbstractDistribution | None = None,
        encoder: Callable | None = None,
        *,
        hidden: tuple[int, ...] = (200, 200),
        activation: str = "relu",
    ):
        own, self.shared = split_shared(MeanField(scale=1.0) if distribution is None else distribution)
        self.distribution = Frozen(own)
        self.encoder = UNSIZED if encoder is None else encoder
        self.hidden, self.activation = tuple(hidden), activation

    def _whole(self) -> AbstractDistribution:
        return eqx.combine(self.distribution.value, self.shared)

    @property
    def facts(self):
        return self._whole().facts

    @property
    def sites(self):
        """The factors, where the distribution is a product of them."""
        return self.distribution.value.sites

    def kind_of(self, site):
        return self._whole().kind_of(site)

    def sharpened(self):
        return self._around(self._whole().sharpened())

    def _around(self, distribution: Any, **fields: Any) -> "Amortised":
        own, shared = split_shared(distribution)
        return replaced(self, distribution=Frozen(own), shared=shared, **fields)

    def bind(self, latents, rows, key):
        if rows is None:
            raise ModelError(
                explain(
                    "`Amortised` for a model with global latents",
                    "there is no row of data for the encoder to read",
                    "amortised inference gives each datum its own latent",
                    "MeanField() or FullRank(), or a model with a latent for each row",
                )
            )
        row = row_spec(rows)
        distribution = self._whole().bind(latents, None, key)
        leaves = jax.tree.leaves(split_trainable(split_shared(distribution)[0])[0])
        n_params = sum(a.size for a in leaves)
        n_inputs = sum(a.size for a in jax.tree.leaves(row))
        encoder = self.encoder
        if encoder is None:
            encoder = MLP(key, n_inputs, self.hidden, n_params, activation=self.activation)
        out = jax.tree.leaves(eqx.filter_eval_shape(encoder, row))
        if [a.shape for a in out] not in ([(n_params,)], [a.shape for a in leaves]):
            raise ModelError(
                explain(
                    f"`Amortised` with an encoder that returns shapes {[a.shape for a in out]}",
                    f"`{type(distribution).__name__}` has parameters of shapes {[a.shape for a in leaves]}",
                    "the encoder's output is the distribution's parameters",
                    f"one array of shape ({n_params},), or a tuple of arrays of those shapes",
                )
            )
        return self._around(distribution, encoder=encoder)

    def __call__(self, x: PyTree) -> AbstractDistribution:
        params, rest = split_trainable(self.distribution.value)
        offsets, treedef = jax.tree.flatten(params)
        out = jax.tree.leaves(self.encoder(x))
        if (len(out) == 1 and len(offsets) > 1) or out[0].shape != offsets[0].shape:
            out = _split(out[0], offsets)
        own = jax.tree.unflatten(treedef, [a + b for a, b in zip(out, offsets, strict=True)])
        return eqx.combine(own, rest, self.shared)


def _split(vector: Array, like: list[Any]) -> list[Array]:
    out, at = [], 0
    for a in like:
        out.append(vector[at : at + a.size].reshape(a.shape))
        at += a.size
    return out
