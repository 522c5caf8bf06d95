"""A method for each site of a mixed model."""

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
from jax.lax import stop_gradient

from ..facts import Fact, Requirement
from .base import AbstractEstimator, AbstractStateless, Terms
from .requirements import FRESH, INDEPENDENT

_PRODUCT = Requirement(
    "family", Fact.PRODUCT, "a rule is given for each factor", "one estimator for all, or Product({...})"
)


class Sitewise(AbstractStateless):
    """A gradient estimator for each factor of a `Product`.

    Definition: path sites stay live inside the log-weights; score sites are stopped and add signal_k d log q_s / dphi.
    Arguments:  methods: {site: Pathwise() | LeaveOneOut()}; keys as in the `Product`.
    Bias:       none.   Cost: one log-density gradient a draw.
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
        scores = [m for m in self.methods if m.role == "score"]
        shared = [r for m in self.methods for r in m.requires if r.axis != "family"]
        return (_PRODUCT, *dict.fromkeys(shared), *((FRESH, INDEPENDENT) if scores else ()))

    def problems(self, composition):
        sites = getattr(composition.family, "sites", {})
        out = []
        if set(self.names) != set(sites):
            wrong = f"methods for {sorted(map(str, self.names))}, factors {sorted(map(str, sites))}"
            out.append((wrong, "each factor of q needs one method", "one key a factor"))
        for name, method in zip(self.names, self.methods, strict=True):
            if method.role is None:
                out.append(
                    (
                        f"{type(method).__name__}() for site {name!r}",
                        "it does not work on one site alone",
                        "Pathwise() or LeaveOneOut()",
                    )
                )
            missing = [
                r for r in method.requires if r.axis == "family" and name in sites and r.fact not in sites[name].facts
            ]
            out += [
                (f"{type(method).__name__}() for site {name!r}: {r.fact.value}, which it lacks", r.because, r.instead)
                for r in missing
            ]
        return out

    def noise(self, key, plan, q, shape):
        return plan.draw(key, q.noise_law(), shape)

    def terms(self, noise, bound, carry):
        methods = dict(zip(self.names, self.methods, strict=True))
        by_path = {s for n, m in methods.items() if m.role == "path" for s in ((n,) if isinstance(n, str) else n)}
        draws = {s: a if s in by_path else jax.tree.map(stop_gradient, a) for s, a in bound.draw(noise).items()}
        log_w = bound.log_weight(draws)
        value = bound.reduce(log_w)
        scores = bound.map(lambda m, q, x, d: q.site_log_probs(d), jax.tree.map(stop_gradient, draws))
        terms = [(m.signal(bound, log_w) * scores[n]).sum(0) for n, m in methods.items() if m.role == "score"]
        return Terms(value + sum(terms), value)
