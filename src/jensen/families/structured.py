"""Structured q: each site's law depends on the sites before it."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..errors import ModelError, explain
from ..facts import Fact
from ..nets import MLP
from ..tree import Layout, Shared, replaced, split_trainable
from .base import UNSIZED, AbstractDistribution, AbstractPlain
from .mean_field import MeanField
from .product import Product

KEPT = frozenset({
    Fact.LOG_PROB, Fact.ZERO_MEAN_SCORE, Fact.DRAW_LOG_PROB, Fact.LOG_RATIO, Fact.TYPED_NOISE, Fact.REPARAMETERISED,
    Fact.ENUMERABLE,
})  # fmt: skip
"""What a chain of laws has if all its laws have it."""


class Autoregressive(AbstractPlain):
    """Structured over sites: q(z) = prod_i q_i(z_i | z_1, ..., z_{i-1}).

    Definition: the parameters of q_i are its own + net_i(the sites before it that it reads). With linear nets and normal
                laws the mean AND the log sd of a site follow the sites before: a hierarchy whose first site is a log
                scale (a funnel) is in the family.
    Arguments:  sites: {"tau": MeanField(), "theta": MeanField()} in the order of drawing, or the names alone (all
                `MeanField`); left out, the model's sites in their sorted order. Scales first, what they scale after them.
                reads: {"theta": ("tau",)}: the sites that a site reads; default: all before it.
                hidden, activation: of the nets; () makes them linear. They start at 0: as a `Product`.
    Facts:      those of a density that all laws share; FACTORS. For dependence within given blocks and none between them
                no order is needed: `Product({("a", "b"): FullRank(), "c": MeanField()})`.
    Cost:       one small network a site and draw; nets are `Shared` under `Amortised`.
    Reference:  Hoffman and Blei (2015); Ranganath, Tran and Blei (2016).  [hoffman2015structured]
    """

    laws: tuple[Any, ...]
    nets: Shared[tuple[MLP | None, ...]]
    names: tuple[str, ...] | None = eqx.field(static=True)
    reads: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        sites: Mapping[str, AbstractDistribution] | Sequence[str] | None = None,
        *,
        reads: Mapping[str, Sequence[str]] | None = None,
        hidden: Sequence[int] = (),
        activation: str = "tanh",
        nets: Any = None,
    ):
        self.names = None if sites is None else tuple(sites)
        self.laws = tuple(sites.values()) if isinstance(sites, Mapping) else tuple(MeanField() for _ in sites or ())
        self.reads = tuple((site, tuple(read)) for site, read in dict(reads or {}).items())
        self.hidden, self.activation = tuple(hidden), activation
        self.nets = UNSIZED if nets is None else Shared(nets)
        for site, read in self.reads:
            before = (self.names or ())[: (self.names or ()).index(site)] if site in (self.names or ()) else ()
            if not set(read) <= set(before):
                asked, wrong = f"`Autoregressive(reads={{{site!r}: {read}}})`", f"before {site!r} come {list(before)}"
                because = "a site may only read what is drawn already"
                raise ModelError(explain(asked, wrong, because, "sites in the order of drawing, and reads among them"))

    @property
    def facts(self):
        shared = frozenset.intersection(*[frozenset(q.facts) for q in self.laws or (MeanField(),)])
        return (shared & KEPT) | {Fact.FACTORS}

    def kind_of(self, site):
        return dict(zip(self.names or (), self.laws, strict=True))[site].kind_of(site) if self.names else "real"

    def bind(self, latents, rows, key):
        want = tuple(latents) if isinstance(latents, Mapping) else ()
        names = tuple(sorted(want)) if self.names is None else self.names
        if set(names) != set(want) or len(names) < 2:
            wrong = f"the model's sites are {sorted(want)}" if want else "the latents are not named"
            because = "each site of the model needs one law, and there are two or more in a chain"
            instead = "one key a site, in the order of drawing; or FullRank() for a single array"
            raise ModelError(explain(f"`Autoregressive` over {list(names)}", wrong, because, instead))
        keys = jr.split(key, 2 * len(names))
        laws = self.laws or tuple(MeanField() for _ in names)
        bound = {n: q.bind(latents[n], None, k) for n, q, k in zip(names, laws, keys, strict=False)}
        new = replaced(self, names=tuple(bound), laws=tuple(bound.values()))
        if self.nets is not None:
            return new
        made = []
        for n, k in zip(names, keys[len(names) :], strict=True):
            size = sum(Layout(latents[m]).size for m in new._read(n))
            out = sum(a.size for a in jax.tree.leaves(split_trainable(bound[n])[0]))
            made.append(_silent(MLP(k, size, self.hidden, out, activation=self.activation)) if size else None)
        return replaced(new, nets=Shared(tuple(made)))

    def _read(self, site: str) -> tuple[str, ...]:
        names = self.names or ()
        return dict(self.reads).get(site, names[: names.index(site)])

    def law_of(self, site: int, before: Mapping[str, Any]) -> AbstractDistribution:
        """q_i given the sites before it."""
        net, law = self.nets.value[site], self.laws[site]
        if net is None:
            return law
        params, rest = split_trainable(law)
        own, unravel = ravel_pytree(params)
        return eqx.combine(unravel(own + net({n: before[n] for n in self._read((self.names or ())[site])})), rest)

    def noise_law(self):
        return tuple(q.noise_law() for q in self.laws)

    def transform(self, noise):
        return self.transform_and_log_ratio(noise)[0]

    def transform_and_log_ratio(self, noise):
        drawn, log_q = {}, jnp.zeros(())
        for i, (name, e) in enumerate(zip(self.names or (), noise, strict=True)):
            drawn[name], own = self.law_of(i, drawn).transform_and_log_ratio(e)
            log_q = log_q + own
        return drawn, log_q

    def site_log_probs(self, draw: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
        """log q_i(z_i | z_<i) of each site."""
        return {n: self.law_of(i, draw).log_prob(draw[n]) for i, n in enumerate(self.names or ())}

    def log_factors(self, draw):
        return [((*self._read(n), n), v) for n, v in self.site_log_probs(draw).items()]

    def log_prob(self, draw):
        return sum(self.site_log_probs(draw).values(), jnp.zeros(()))

    def support(self):
        """The grid of the sites' supports."""
        return Product(dict(zip(self.names or (), self.laws, strict=True))).support()


def _silent(net: MLP) -> MLP:
    return eqx.tree_at(lambda m: m.weights[-1], net, jnp.zeros_like(net.weights[-1]))
