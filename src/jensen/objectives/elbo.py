"""Evidence lower bound."""

from typing import ClassVar, Literal

import equinox as eqx

from ..errors import OptionError, explain
from ..facts import Fact, Requirement
from .base import RATIO, AbstractObjective

_ENTROPY = Requirement(
    "family", Fact.ENTROPY, "the entropy is taken in closed form", "ELBO(), whose entropy is sampled"
)
_MOMENTS = Requirement(
    "family", Fact.MOMENTS, "KL(q || prior) needs q's means and variances", "ELBO(), whose KL is sampled"
)
_PRIOR = Requirement("model", Fact.MOMENT_PRIOR, "KL(q || prior) is taken in closed form", 'ELBO(), or ELBO("entropy")')


class ELBO(AbstractObjective):
    """Evidence lower bound (ELBO).

    Definition: L = E_q[log p(x, z) - log q(z)] = log p(x) - KL(q || p(z | x)).
    Arguments:  exact: what is taken in closed form: "none" (all sampled), "entropy" (of q), or "kl" (from the prior).
    Returns:    nats, larger is better, a lower bound of the log evidence.   Bias: none.
    Cost:       one log-density gradient a draw.
    Reference:  Jordan et al. (1999); Kingma and Welling (2014), equations 2-3.  [jordan1999introduction]
    """

    closed: str = eqx.field(static=True)
    sense: ClassVar = 1
    min_samples: ClassVar = 1

    def __init__(self, exact: Literal["none", "entropy", "kl"] = "none"):
        if exact not in ("none", "entropy", "kl"):
            asked = f"`ELBO(exact={exact!r})`"
            raise OptionError(
                explain(asked, "it is unknown", "it names the closed-form part", '"none", "entropy" or "kl"')
            )
        self.closed = exact

    @property
    def facts(self):
        return frozenset({Fact.LINEAR, Fact.WHOLE_WEIGHT} if self.closed == "none" else {Fact.LINEAR})

    @property
    def requires(self):
        return {"none": (RATIO,), "entropy": (_ENTROPY,), "kl": (_ENTROPY, _MOMENTS, _PRIOR)}[self.closed]

    def log_weight(self, model, latent, log_ratio, x):
        if self.closed == "kl":
            return model.log_likelihood(latent, x)
        log_p = model.log_density(latent, x)
        return log_p if self.closed == "entropy" else log_p - log_ratio

    def reduce(self, log_w):
        return log_w.mean()

    def exact(self, model, q, x):
        if self.closed == "none":
            return 0.0
        entropy = q.entropy()
        return entropy + model.expected_log_prior(*q.moments()) if self.closed == "kl" else entropy
