"""A method for each site of a mixed model."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..facts import Fact, Requirement
from ..families.discrete import listed
from ..families.product import Product
from ..tree import length
from .base import AbstractEstimator, AbstractSimple, Bound, Terms
from .requirements import FRESH, INDEPENDENT

_PRODUCT = Requirement(
    "family", Fact.PRODUCT, "a rule is given for each factor", "one estimator for all, or Product({...})"
)
_LINEAR = Requirement(
    "objective",
    Fact.LINEAR,
    "the sum over the states of some sites is an expectation of each draw's own log-weight",
    "ELBO(), or LeaveOneOut() for those sites",
)


class Sitewise(AbstractSimple):
    """A gradient estimator for each factor of a `Product`.

    Definition: path sites stay live inside the log-weights; score sites are stopped and add signal_k d log q_s / dphi;
                enumerated sites are summed over, all their states for each draw of the others: the log-weight of draw k
                is sum_e q(e) l(e, z_k), for the signal of the score sites too.
    Arguments:  methods: {site: Pathwise() | LeaveOneOut() | Enumerate()}; keys as in the `Product`.
    Bias:       none.   Cost: one log-density gradient a draw, times the number of enumerated states (at most 2^16).
    Raises:     ModelError above that.
    Reference:  Schulman, Heess, Weber and Abbeel (2015), stochastic computation graphs.  [schulman2015scg]
    """

    names: tuple = eqx.field(static=True)
    methods: tuple[AbstractEstimator, ...]
    unbiased: ClassVar = True
    role: ClassVar = None

    def __init__(self, methods: Mapping):
        self.names, self.methods = tuple(methods), tuple(methods.values())

    @property
    def min_samples(self):
        return max((m.min_samples for m in self.methods), default=1)

    @property
    def requires(self):
        roles = {m.role for m in self.methods}
        shared = [r for m in self.methods for r in m.requires if r.axis != "family"]
        scores = (FRESH, INDEPENDENT) if "score" in roles else ()
        return (_PRODUCT, *dict.fromkeys(shared), *scores, *((_LINEAR,) if "enumerate" in roles else ()))

    def problems(self, composition):
        sites = getattr(composition.family, "sites", {})
        out = []
        if set(self.names) != set(sites):
            wrong = f"methods for {sorted(map(str, self.names))}, factors {sorted(map(str, sites))}"
            out.append((wrong, "each factor of q needs one method", "one key a factor"))
        for name, method in zip(self.names, self.methods, strict=True):
            wrong = f"{type(method).__name__}() for site {name!r}"
            if method.role is None:
                instead = "Pathwise(), LeaveOneOut() or Enumerate()"
                out.append((wrong, "it does not work on one site alone", instead))
            lacks = [
                r
                for r in method.requires
                if r.axis == "family" and r.fact not in getattr(sites.get(name), "facts", [r.fact])
            ]
            out += [(f"{wrong}: {r.fact.value}, which it lacks", r.because, r.instead) for r in lacks]
        return out

    def _having(self, role: str) -> dict[Any, AbstractEstimator]:
        return {n: m for n, m in zip(self.names, self.methods, strict=True) if m.role == role}

    def terms(self, noise, bound, carry):
        path = _flat(self._having("path"))
        draws = {s: a if s in path else stop_gradient(a) for s, a in bound.draw(noise).items()}
        log_w = self._log_weight(bound, draws)
        value = bound.reduce(log_w)
        scores = bound.map(lambda m, q, x, d: q.site_log_probs(d), stop_gradient(draws))
        terms = [(m.signal(bound, log_w) * scores[n]).sum(0) for n, m in self._having("score").items()]
        return Terms(value + sum(terms), value)

    def _log_weight(self, bound: Bound, draws: dict[str, PyTree]) -> Array:
        """(K, *plate), its expectation over the enumerated sites."""
        names = list(self._having("enumerate"))
        if not names:
            return bound.log_weight(draws)
        part = lambda q: Product({n: q.sites[n] for n in names})
        sizes = bound.each(lambda q, x: tuple(q.sites[n].support() for n in names))
        listed(f"Sitewise, sites {names}", math.prod(a.shape[len(bound.plate)] for a in map(_first, sizes)))
        states = bound.each(lambda q, x: part(q).support())
        if bound.plate:
            states = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), states)  # (S, *plate, ...)
        log_q = bound.map(lambda m, q, x, d: part(q).log_prob(d), states)
        n_states, n_draws = length(states), length(draws)
        every = {s: jnp.tile(a, (n_states, *(1,) * (a.ndim - 1))) for s, a in draws.items()}
        every |= {s: jnp.repeat(a, n_draws, 0) for s, a in states.items()}
        log_w = bound.log_weight(every).reshape((n_states, n_draws, *bound.plate))
        return (jnp.exp(log_q)[:, None] * log_w).sum(0)


def _first(tree: PyTree) -> Array:
    return jax.tree.leaves(tree)[0]


def _flat(names: Any) -> set[str]:
    return {s for n in names for s in ((n,) if isinstance(n, str) else n)}
