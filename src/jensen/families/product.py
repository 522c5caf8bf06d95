"""Product of families over named sites, continuous and discrete mixed."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from ..errors import ModelError, explain
from ..facts import Fact
from ..tree import Layout, replaced
from .base import OF_ONE_LAW, AbstractDistribution, AbstractPlain

Name = str | tuple[str, ...]


def _grouped(names: tuple[Name, ...], tree: Mapping) -> dict:
    """{site: value} regrouped by key; a tuple key holds several sites under one joint law."""
    return {n: tree[n] if isinstance(n, str) else {s: tree[s] for s in n} for n in names}


def _flat(groups: Mapping) -> dict:
    out = {}
    for name, value in groups.items():
        out.update({name: value} if isinstance(name, str) else value)
    return out


class Product(AbstractPlain):
    """Independent factors, one a site or group of sites.

    Definition: q(z) = prod_g q_g(z_g); a draw is a dictionary {site: value}.
    Arguments:  sites: {"site": family} or {("site", "site"): family}; the factors may be unsized.
    Facts:      only those all factors share.
    Example:    >>> Product({"w": FullRank(), "b": Bernoulli()})
    """

    names: tuple[Name, ...] = eqx.field(static=True)
    factors: tuple[AbstractDistribution, ...]

    def __init__(self, sites: Mapping[Name, AbstractDistribution]):
        flat = [s for n in sites for s in ((n,) if isinstance(n, str) else n)]
        double = sorted({s for s in flat if flat.count(s) > 1})
        if double or not flat:
            wrong = f"sites {double} appear twice" if double else "there is no site"
            raise ModelError(explain("`Product(...)`", wrong, "each site has one factor", "one key a site or group"))
        self.names, self.factors = tuple(sites), tuple(sites.values())

    @property
    def facts(self):
        shared = frozenset.intersection(*[frozenset(q.facts) for q in self.factors])
        return shared - OF_ONE_LAW | {Fact.PRODUCT, Fact.FACTORS}

    @property
    def sites(self) -> dict[Name, AbstractDistribution]:
        return dict(zip(self.names, self.factors, strict=True))

    def kind_of(self, site):
        mine = [q for n, q in self.sites.items() if site == n or (not isinstance(n, str) and site in n)]
        return mine[0].kind_of(site) if mine else "real"

    def bind(self, latents, rows, key):
        have = {s for n in self.names for s in ((n,) if isinstance(n, str) else n)}
        want = set(latents) if isinstance(latents, Mapping) else set()
        if have != want:
            raise ModelError(
                explain(
                    f"`Product` over {sorted(have)} for latents {Layout(latents).shape_tree()}",
                    f"missing {sorted(want - have)}, unknown {sorted(have - want)}"
                    if want
                    else "the latents are not named",
                    "each site of the model needs exactly one factor",
                    "one key a site of the model",
                )
            )
        for name, q in self.sites.items():
            if Fact.LOG_PROB not in q.facts:
                wrong = f"`{type(q).__name__}` for {name!r} does not tell log q of a latent"
                because = "a draw of a product is the latents themselves"
                raise ModelError(
                    explain("`Product(...)`", wrong, because, "explicit families as factors, or it for all sites")
                )
        groups = _grouped(self.names, latents)
        keys = jr.split(key, len(self.names))
        factors = (q.bind(groups[n], rows, k) for (n, q), k in zip(self.sites.items(), keys, strict=True))
        return replaced(self, factors=tuple(factors))

    def noise_law(self):
        return tuple(q.noise_law() for q in self.factors)

    def transform(self, noise):
        return _flat({n: q.transform(e) for n, q, e in zip(self.names, self.factors, noise, strict=True)})

    def transform_and_log_ratio(self, noise):
        pairs = [q.transform_and_log_ratio(e) for q, e in zip(self.factors, noise, strict=True)]
        return _flat(dict(zip(self.names, [d for d, _ in pairs], strict=True))), sum(v for _, v in pairs)

    def site_log_probs(self, draw) -> dict[Name, jax.Array]:
        """log q_g(z_g), a factor each: what sitewise estimators differentiate."""
        groups = _grouped(self.names, draw)
        return {n: q.log_prob(groups[n]) for n, q in self.sites.items()}

    def log_factors(self, draw):
        return [((n,) if isinstance(n, str) else n, v) for n, v in self.site_log_probs(draw).items()]

    def log_prob(self, draw):
        return sum(self.site_log_probs(draw).values())

    def entropy(self):
        return sum(q.entropy() for q in self.factors)

    def moments(self):
        pairs = [q.moments() for q in self.factors]
        return tuple(_flat(dict(zip(self.names, [p[i] for p in pairs], strict=True))) for i in (0, 1))

    def expected_log_prob(self, mean, variance):
        m, v = _grouped(self.names, mean), _grouped(self.names, variance)
        return sum(q.expected_log_prob(m[n], v[n]) for n, q in self.sites.items())

    def support(self):
        """The grid of the factors' supports, the first factor slowest."""
        parts = [q.support() for q in self.factors]
        sizes = [jax.tree.leaves(p)[0].shape[0] for p in parts]
        grid = jnp.stack(jnp.meshgrid(*[jnp.arange(n) for n in sizes], indexing="ij"), -1).reshape(-1, len(sizes))
        taken = [jax.tree.map(lambda a, i=i: a[grid[:, i]], p) for i, p in enumerate(parts)]
        return _flat(dict(zip(self.names, taken, strict=True)))
