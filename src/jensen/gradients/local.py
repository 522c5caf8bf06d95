"""Local signals: each layer or site learns from those factors of the model only that it has an influence on."""

from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..facts import Fact, Requirement
from .base import AbstractSimple, Bound, Terms
from .requirements import FRESH, INDEPENDENT, LINEAR, SCORE

_BECAUSE, _INSTEAD = "each site learns from its own factors of log p only", "LeaveOneOut(), with one signal for all"
FACTORS = [Requirement(axis, Fact.FACTORS, _BECAUSE, _INSTEAD) for axis in ("model", "family")]
WHOLE = Requirement("objective", Fact.WHOLE_WEIGHT, "the factors of log p and log q are counted one by one", "ELBO()")


def local_terms(bound: Bound, draws: PyTree) -> tuple[Array, Array, Array]:
    """(log-weight (K, *plate), live; local signals (K, *plate, S), stopped; log q of each layer or site, live).

    The signal of a site: the factors of log p that read it, or what is drawn from it, less log q of the same.
    """

    def cell(m, q, x, draw):
        of_q, of_p = q.log_factors(draw), m.log_factors(draw, x)
        signals = []
        for sites, drawn in _influence([set(reads) for reads, _ in of_q]):
            signals.append(sum(v for reads, v in of_p if sites & set(reads)) - sum(of_q[t][1] for t in drawn))
        whole = sum(v for _, v in of_p) - q.log_ratio(draw)
        return whole, stop_gradient(jnp.stack(signals)), jnp.stack([v for _, v in of_q])

    return bound.map(cell, draws)


def _influence(reads: list[set[str]]) -> Iterator[tuple[set[str], list[int]]]:
    """For each factor of q, in the order of drawing: the sites that it or what depends on it draws, and their factors."""
    own = [r.difference(*reads[:i]) for i, r in enumerate(reads)]
    for s in range(len(reads)):
        sites, drawn = set(own[s]), [s]
        for t in range(s + 1, len(reads)):
            if sites & reads[t]:
                sites, drawn = sites | own[t], [*drawn, t]
        yield sites, drawn


class RaoBlackwell(AbstractSimple):
    """Leave-one-out with local signals: what a layer has no influence on is taken out of its signal.

    Definition: grad = 1/K sum_k sum_s (r_ks - mean of the other r_js) d log q(h_ks) / dphi, with
                r_s = the factors of log p that depend on h_s or on what is drawn from it, less log q of the same.
    Derivation: the terms left out are independent of h_s given what came before, and the score's mean is zero.
    Bias:       none; the variance is at most that of the whole signal with the same baseline near the optimum.
    Cost:       K evaluations.
    Reference:  Mnih and Gregor (2014), section 2.3.3; Ranganath, Gerrish and Blei (2014), section 3.1.  [mnih2014nvil]
    """

    requires: ClassVar = (SCORE, *FACTORS, LINEAR, WHOLE, FRESH, INDEPENDENT)
    min_samples: ClassVar = 2
    unbiased: ClassVar = True
    role: ClassVar = None

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w, signals, log_q = local_terms(bound, draws)
        k = log_w.shape[0]
        centred = (signals - signals.mean(0)) / (k - 1)  # (r_k - mean of the others) / K
        value = bound.reduce(log_w)
        return Terms(value + (centred * log_q).sum((0, -1)), value)
