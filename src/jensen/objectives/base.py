"""Objectives: which bound. L = sum over data of sense * (E[reduce(log_w_1..K)] + exact), to be maximised."""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..facts import Fact, Requirement, amend, owner, rewritten

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

RATIO = Requirement(
    "family", Fact.LOG_RATIO, "the log-weight is log p(x, z) - log q(z)", "a family whose density can be evaluated"
)
EXACT_WEIGHT = Requirement(
    "model",
    Fact.EXACT_LOG_WEIGHT,
    "it is nonlinear in the log-weights, and a nonlinear function of a minibatch estimate is biased",
    "ELBO(), or batch_size=None (all rows at every step)",
)
INDEPENDENT_DRAWS = Requirement(
    "plan",
    Fact.INDEPENDENT,
    "it is nonlinear in the log-weights, so dependence between draws changes the bound itself",
    "plans.IID()",
)


class AbstractObjective(eqx.Module):
    """A bound on log p(x), as a function of K log-weights of one datum.

    facts, requires: for the judge.   sense: +1 for a lower bound (maximised), -1 for an upper bound (minimised).
    min_samples: fewest draws K that make sense.
    """

    facts: AbstractVar[frozenset]
    requires: AbstractVar[tuple]
    sense: AbstractVar[int]
    min_samples: AbstractVar[int]

    def __init_subclass__(cls, **kwargs):
        """A subclass that writes `reduce` anew may be linear no longer, one that writes `log_weight` or `exact` anew may have
        another weight; where it does not declare `facts` itself, it promises neither, and asks for what that takes."""
        super().__init_subclass__(**kwargs)
        holder = owner(cls, "facts")
        bent = bool(rewritten(cls, holder, ("reduce",)))
        lost = {Fact.LINEAR} if bent else set()
        lost |= {Fact.WHOLE_WEIGHT} if rewritten(cls, holder, ("log_weight", "exact")) else set()
        if lost:
            amend(cls, "facts", lambda facts: frozenset(facts) - lost)
        if bent and rewritten(cls, owner(cls, "requires"), ("reduce",)):
            more = EXACT_WEIGHT, INDEPENDENT_DRAWS
            amend(cls, "requires", lambda requires: tuple(dict.fromkeys((*requires, *more))))

    @abc.abstractmethod
    def log_weight(self, model, latent: PyTree, log_ratio: Float[Array, ""], x: PyTree) -> Float[Array, ""]:
        """The log-weight of one draw, log p(x, z) - log q(z), less what `exact` supplies."""

    @abc.abstractmethod
    def reduce(self, log_w: Float[Array, " K"]) -> Float[Array, ""]:
        """K log-weights to one number."""

    @abc.abstractmethod
    def exact(self, model, q, x: PyTree) -> Float[Array, ""]:
        """The part known in closed form (entropy, KL); 0 if none."""
