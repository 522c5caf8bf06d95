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
LAYERS = Requirement(
    "family", Fact.LAYERS, "the variables of a layer are relaxed or flipped together", "LeaveOneOut(), or Pathwise()"
)
BINARY = Requirement("family", Fact.BINARY, "each variable is compared with its opposite", "LeaveOneOut(), or REBAR()")
LINEAR = Requirement(
    "objective", Fact.LINEAR, "the signal of each draw is its own log-weight", "ELBO(), or LeaveOneOut()"
)
FRESH = Requirement(
    "plan",
    Fact.FRESH,
    "only its mean over noise is the gradient: with fixed noise it descends no function",
    "plans.IID(), or Pathwise()",
)
INDEPENDENT = Requirement(
    "plan", Fact.INDEPENDENT, "a draw's baseline is made from the other draws, and must not depend on it", "plans.IID()"
)
