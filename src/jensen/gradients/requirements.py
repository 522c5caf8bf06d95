"""Requirements that several estimators share."""

from ..facts import Fact, Requirement

REPARAMETERISED = Requirement(
    "family",
    Fact.REPARAMETERISED,
    "the gradient is carried by the sample path dz/dphi",
    "LeaveOneOut(), or Enumerate()",
)
DIFFERENTIABLE = Requirement("model", Fact.DIFFERENTIABLE, "the gradient is carried by d log p / dz", "LeaveOneOut()")
SCORE = Requirement("family", Fact.DRAW_LOG_PROB, "the score, d log q / dphi, is differentiated", "Pathwise()")
FRESH = Requirement(
    "plan",
    Fact.FRESH,
    "only its mean over noise is the gradient: with fixed noise it descends no function",
    "plans.IID(), or Pathwise()",
)
INDEPENDENT = Requirement(
    "plan", Fact.INDEPENDENT, "a draw's baseline is made from the other draws, and must not depend on it", "plans.IID()"
)
