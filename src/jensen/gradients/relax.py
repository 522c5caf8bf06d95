"""Score function with a learned control variate of relaxed variables."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..nets import MLP
from ..tree import row_spec
from .rebar import start_log_temperature, start_scale
from .relaxed import AbstractControlled, controlled_score, draw_log_weight, not_relaxable
from .requirements import DIFFERENTIABLE, FRESH, LAYERS, LINEAR, SCORE


class RELAX(AbstractControlled):
    """RELAX: REBAR, with a network of the relaxed variables added to the control variate.

    Definition: as REBAR with eta c_l + r(2 y - 1, x): y the draw with layer l and those after it relaxed, x the row (under
                global latents r reads y alone); m is the running mean without r, whose constant learns the best baseline.
    Arguments:  hidden, activation: of the network r, which must be smooth.
                temperature, scale: as in REBAR. `temperature=None` leaves the network alone: the model need not be
                differentiable, and the variables are relaxed at temperature 1.
    Bias:       none, for any network, temperature and scale, which descend the gradient's own square; the mean is of earlier
                steps.
    Cost:       REBAR's, and one network for each layer and draw; without a temperature K evaluations and the networks.
    Reference:  Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), section 3.  [grathwohl2018relax]
    """

    net: MLP | None
    log_temperature: Float[Array, ""] | None
    scale: Float[Array, ""] | None
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    minimises_variance: ClassVar = True
    role: ClassVar = None

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        temperature: float | None = 0.5,
        scale: float = 1.0,
        activation: str = "tanh",
    ):
        self.net, self.hidden, self.activation = None, tuple(hidden), activation
        learned = temperature is not None
        self.log_temperature = start_log_temperature("RELAX", temperature) if learned else None
        self.scale = start_scale("RELAX", scale) if learned else None

    @property
    def requires(self):
        shared = (SCORE, LAYERS, LINEAR, FRESH)
        return shared if self.log_temperature is None else (*shared, DIFFERENTIABLE)

    def bind(self, latents, rows, key):
        net = surrogate_network(key, latents, rows, self.hidden, self.activation)
        return eqx.tree_at(lambda e: e.net, self, net, is_leaf=lambda a: a is None) if self.net is None else self

    def problems(self, composition):
        return [] if self.log_temperature is None else not_relaxable(composition)

    def terms(self, noise, bound, carry):
        def control(m, q, x, layers):
            centred = jax.tree.map(lambda y: 2 * y - 1, q.latent(q.unlayered(layers)))
            r = surrogate(self.net, centred, x if bound.plate else ())
            return 0.0 if self.scale is None else self.scale * draw_log_weight(bound.objective, m, q, x, layers), r

        temperature = 1.0 if self.log_temperature is None else jnp.exp(self.log_temperature)
        return controlled_score(bound, noise, temperature, control, carry)


def surrogate_network(key: Array, latents: Any, rows: Any, hidden: tuple[int, ...], activation: str) -> MLP:
    """A network of one latent, and of its row of data if it has one; it starts at 0, as no control variate."""
    read = (latents, () if rows is None else row_spec(rows))
    net = MLP(key, sum(a.size for a in jax.tree.leaves(read)), hidden, 1, activation=activation)
    return eqx.tree_at(lambda m: m.weights[-1], net, jnp.zeros_like(net.weights[-1]))


def surrogate(net: Any, latent: Any, row: Any) -> Float[Array, ""]:
    return net((latent, row))[0]
