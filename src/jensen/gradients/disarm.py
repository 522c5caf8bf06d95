"""DisARM."""

from typing import ClassVar

import jax

from .arm import PAIRED, AbstractReflected
from .requirements import BINARY, FRESH, LAYERS


class DisARM(AbstractReflected):
    """DisARM, also known as U2G: ARM without its uniforms, for binary latents.

    Definition: dL/da_d = E[1/2 (f(b) - f(b')) (b_d - b'_d) sigmoid(|a_d|)], b and b' as in ARM: the mean of ARM given
                the pair. With K pairs and a nonlinear bound, each draw in turn is replaced by its partner in
                g(l_1..l_K), the others fixed; what q's parameters do directly is added.
    Arguments:  none; `n_samples=K` counts pairs, any K >= 1.
    Bias:       none.   Cost: 1 + (number of layers) evaluations a draw; no gradient of log p in z.
    Reference:  Dong, Mnih and Tucker (2020), equation 7; Yin, Ho, Yan, Qian and Zhou (2020).  [dong2020disarm]
    """

    requires: ClassVar = (LAYERS, BINARY, FRESH, PAIRED)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None
    same_law: ClassVar = True

    def coefficient(self, u, logits, b, partner):
        return 0.5 * (b - partner) * jax.nn.sigmoid(abs(logits))
