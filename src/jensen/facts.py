"""Facts: what a part of a composition promises. A fact is a promise with a test; parts declare, one judge compares."""

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Fact(enum.Enum):
    """A capability. The value is the sentence an error message prints."""

    # of a model
    DIFFERENTIABLE = "log_density(z) is differentiable in z"
    TWICE_DIFFERENTIABLE = "log_density(z) is twice differentiable in z"
    EXACT_LOG_WEIGHT = "the log-weight is exact, not a minibatch estimate under a global latent"
    MINIBATCH = "the log density of a minibatch, scaled up, estimates that of the whole data"
    GENERATIVE = "latents and rows of data can be drawn from the model together"
    MOMENT_PRIOR = "the prior is separate, and its expectation under q is a function of q's means and variances"
    # of a model and of a family
    FACTORS = "the log density is a sum of factors, each of which reads some of the named sites"
    # of a family
    LOG_PROB = "log q of the latent can be evaluated (log_ratio is log_prob)"
    DRAW_LOG_PROB = "log q of a whole draw, extras included, can be evaluated"
    LOG_RATIO = "log q of the latent, or an upper bound of it in expectation, can be evaluated"
    ZERO_MEAN_SCORE = "the direct parameter gradient of log_ratio has mean zero"
    REPARAMETERISED = "transform(noise) is differentiable in the parameters"
    ENUMERABLE = "the support can be listed"
    ENTROPY = "the entropy has a closed form"
    MOMENTS = "marginal means and variances have a closed form"
    INDEPENDENT_COORDINATES = "the coordinates of the latent are independent of each other"
    WEAK_DERIVATIVE = "each coordinate's law has a weak derivative (a difference of two laws) in each parameter"
    STANDARDISED = "a draw is a smooth map of a standardised one, whose law hardly depends on the parameters"
    NORMAL_SCORES = "each coordinate is a known increasing map of a standard normal"
    MOMENT_LOG_PROB = "the mean of log q under another law is a function of that law's means and variances"
    PRODUCT = "q is a product over named sites"
    LAYERS = "q is made of layers of discrete variables, independent of each other given the layers before"
    BINARY = "q is made of layers of Bernoulli variables"
    SEMI_IMPLICIT = "q is an explicit conditional, mixed over a distribution that can be drawn from"
    OWN_PARAMETERS = "every parameter of q(. | x) is computed from x: none is shared by all rows"
    LOCAL = "q has a part of its own for each row of data"
    TYPED_NOISE = "the noise is made of independent normals and uniforms"
    # of an objective
    LINEAR = "the objective is linear in the log-weights"
    WHOLE_WEIGHT = "the log-weight is log p(x, z) - log q(z), nothing of it in closed form"
    # of a sampling plan
    INDEPENDENT = "the K draws are independent"
    FRESH = "every step draws new noise"


class Requirement(NamedTuple):
    """`fact` is needed of the part on `axis`; the two sentences end up in the refusal."""

    axis: str
    fact: Fact
    because: str
    instead: str


# ---- what a subclass keeps of its parent's promises ------------------------------------------------------------------
def owner(cls: type, name: str) -> type:
    """The class that wrote this attribute of `cls`."""
    return next((c for c in cls.__mro__ if name in vars(c)), object)


def rewritten(cls: type, since: type, names: Sequence[str]) -> list[type]:
    """The classes below `since` that wrote anew, in `cls`, what `since` already said by these methods."""
    said = [n for n in names if hasattr(since, n) and not hasattr(getattr(since, n), "__isabstractmethod__")]
    return [owner(cls, n) for n in said if owner(cls, n) not in since.__mro__]


def amend(cls: Any, name: str, change: Callable[[Any], Any]) -> None:
    """An inherited attribute, or property, with a change made to its value."""
    inherited = vars(owner(cls, name))[name]
    amended = (lambda self: change(inherited.fget(self))) if isinstance(inherited, property) else None
    setattr(cls, name, change(inherited) if amended is None else property(amended))
