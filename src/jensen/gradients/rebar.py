"""Score function with the relaxed log-weight as control variate."""

import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from ..families.relaxation import check_temperature
from ..tree import default_float
from .relaxed import AbstractControlled, controlled_score, draw_log_weight, not_relaxable
from .requirements import DIFFERENTIABLE, FRESH, LAYERS, LINEAR, SCORE


class REBAR(AbstractControlled):
    """REBAR: the log-weight at relaxed variables, scaled, is the control variate; its mean is added back along the path.

    Definition: grad = sum_l (f(b) - eta c_l(z~_l) - m) d log q(b_l | b_<l) + eta d c_l(z_l) - eta d c_l(z~_l);
                z_l = logits_l + noise, b_l = hard(z_l), z~_l a draw of z_l | b_l;
                c_l = f(b_<l, soft(z_l), relaxed layers after it).
                m: running mean of f(b) - eta c_l(z~_l).
                The noise of z~ is chosen such that z~_l = z_l in value: one evaluation of c_l serves both.
    Arguments:  temperature: starting value, > 0.   scale: starting value of eta. Both are learned along the way: they
                descend the gradient's own square, since its mean depends on neither.
    Bias:       none, for any temperature and scale.
    Cost:       K evaluations, and for each layer K evaluations at relaxed values with their gradient in z.
    Reference:  Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), section 3.  [tucker2017rebar]
    """

    log_temperature: Float[Array, ""]
    scale: Float[Array, ""]
    requires: ClassVar = (SCORE, LAYERS, DIFFERENTIABLE, LINEAR, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    minimises_variance: ClassVar = True
    role: ClassVar = None

    def __init__(self, temperature: float = 0.5, scale: float = 1.0):
        self.log_temperature = start_log_temperature("REBAR", temperature)
        self.scale = start_scale("REBAR", scale)

    def problems(self, composition):
        return not_relaxable(composition)

    def terms(self, noise, bound, carry):
        control = lambda m, q, x, layers: (self.scale * draw_log_weight(bound.objective, m, q, x, layers), 0.0)
        return controlled_score(bound, noise, jnp.exp(self.log_temperature), control, carry)


def start_log_temperature(name: str, temperature: float) -> Array:
    checked = check_temperature(f"`{name}(temperature={temperature!r})`", temperature, "LeaveOneOut(),")
    return jnp.asarray(math.log(checked), default_float())


def start_scale(name: str, scale: float) -> Array:
    if not math.isfinite(scale):
        asked, because = f"`{name}(scale={scale})`", "it multiplies the control variate"
        raise OptionError(explain(asked, "it is not a finite number", because, "scale=1.0"))
    return jnp.asarray(scale, default_float())
