"""Score-function gradient with control variates."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from ..errors import OptionError, explain
from ..facts import Fact
from .base import AbstractEstimator, Terms
from .baselines import AbstractBaseline, Constant, FullRegression, Regression, RunningMean
from .requirements import FRESH, SCORE

_NAMED: dict[str, AbstractBaseline] = {
    "none": Constant(), "running-mean": RunningMean(), "regression": Regression(), "full-regression": FullRegression(),
}  # fmt: skip


class ScoreFunction(AbstractEstimator):
    """Score-function gradient (REINFORCE, black-box VI) with a control variate.

    Definition: grad E_q[g] = E[ sum_k (f_k - b) d log q(z_k)/dphi + dg/dphi ]; f_k = l_k / K for a linear objective, else g(l).
    Arguments:  baseline: "none", a number (constant), "running-mean", "regression" (the optimal coefficient for each
                parameter), "full-regression" (for each parameter, of all scores), or an `AbstractBaseline`.
    Bias:       none: every baseline is made of earlier steps.   Cost: one evaluation a draw, no gradient of log p in z.
    Reference:  Williams (1992); Ranganath, Gerrish and Blei (2014).  [williams1992reinforce]
    """

    baseline: AbstractBaseline
    requires: ClassVar = (SCORE, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    minimises_variance: ClassVar = False
    role: ClassVar = None

    def __init__(
        self,
        baseline: Literal["none", "running-mean", "regression", "full-regression"]
        | float
        | AbstractBaseline = "running-mean",
    ):
        if isinstance(baseline, str):
            if baseline not in _NAMED:
                asked = f"`ScoreFunction(baseline={baseline!r})`"
                raise OptionError(
                    explain(asked, "it is unknown", "the name is looked up", f"one of {sorted(_NAMED)}, or a number")
                )
            baseline = _NAMED[baseline]
        elif not isinstance(baseline, AbstractBaseline):
            baseline = Constant(float(baseline))
        self.baseline = baseline

    def init(self, bound):
        return self.baseline.init(bound)

    def update(self, carry, stat):
        return self.baseline.update(carry, stat)

    def problems(self, composition):
        return self.baseline.problems(composition)

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        value = bound.reduce(log_w)
        linear = Fact.LINEAR in bound.objective.facts
        share = 1 / log_w.shape[0] if linear else 1.0
        signal = stop_gradient(log_w if linear else jnp.broadcast_to(value, log_w.shape))
        score_term, stat = self.baseline.score_term(bound, draws, signal, carry)
        return Terms(value + share * score_term, value, stat=stat)
