"""Chains of Bernoulli layers: the prior of a sigmoid belief network, and the posterior that runs against it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError, explain
from ..facts import Fact
from ..kernels import bernoulli_log_prob
from ..nets import MLP
from ..tree import Shared, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain
from .discrete import listed
from .noise import Uniform


class Layers(AbstractPlain):
    """Layers of Bernoullis, each given the one before: a sigmoid belief network.

    Definition: q(h) = prod_l prod_d Bernoulli(h_ld; sigmoid(a_ld)), a_1 = logits, a_l = net_l(2 h_{l-1} - 1).
    Arguments:  sites: names of the layers in the order of sampling, or {name: units}; left out, the names of the
                model's latents, sorted. As a prior the top layer comes first, as a posterior the one next to the data.
                hidden, activation: of the nets; () makes them linear.   key: of their starting weights.
    Facts:      the nets are `Shared`: under `Amortised` the encoder computes the first layer's logits, and no more.
    Cost:       the nets, once a draw; 2^units states to enumerate.
    Reference:  Neal (1992); Saul, Jaakkola and Jordan (1996).  [neal1992belief]
    """

    logits: Float[Array, " n"]
    nets: Shared[tuple[MLP, ...]]
    names: tuple[str, ...] | None = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    facts: ClassVar = (PLAIN | {Fact.ENUMERABLE, Fact.LAYERS, Fact.BINARY, Fact.FACTORS}) - {Fact.OWN_PARAMETERS}

    def __init__(
        self,
        sites: Mapping[str, int] | Sequence[str] | None = None,
        *,
        hidden: Sequence[int] = (),
        activation: str = "tanh",
        key: Array | None = None,
    ):
        self.names = None if sites is None else tuple(sites)
        self.hidden, self.activation = tuple(hidden), activation
        self.logits, self.nets = UNSIZED, UNSIZED
        if isinstance(sites, Mapping):
            widths = list(sites.values())
            keys = jr.split(jr.key(0) if key is None else key, len(widths))
            self.logits = jnp.zeros(widths[0], default_float())
            pairs = zip(keys, widths, widths[1:], strict=False)
            self.nets = Shared(tuple(MLP(k, i, self.hidden, o, activation=activation) for k, i, o in pairs))

    @property
    def n_layers(self):
        return len(self.nets.value) + 1

    def kind_of(self, site):
        return "binary"

    def bind(self, latents, rows, key):
        spec = {n: a.shape for n, a in latents.items()} if isinstance(latents, Mapping) else {}
        names = tuple(sorted(spec)) if self.names is None else self.names
        vectors = spec and all(len(s) == 1 for s in spec.values())
        mine = None if self.logits is None else dict(zip(names, self._widths(), strict=True))
        if not vectors or set(names) != set(spec) or (mine and mine != {n: spec[n][0] for n in names}):
            have = mine or list(names)
            raise ModelError(
                explain(
                    f"`Layers` over {have} for latents {spec or latents}",
                    "they are not the layers of q" if vectors else "the latents are not named vectors",
                    "each layer of q is one vector of binary latents of the model",
                    f"Layers({list(spec)})" if vectors else "Bernoulli() for a single array",
                )
            )
        if mine:
            return self
        widths = {n: spec[n][0] for n in names}
        return replaced(self, **vars(Layers(widths, hidden=self.hidden, activation=self.activation, key=key)))

    def _widths(self) -> list[int]:
        return [self.logits.shape[-1], *(net.biases[-1].shape[-1] for net in self.nets.value)]

    # ---- layers -----------------------------------------------------------------------------------------------
    def layers(self, tree: Any) -> tuple:
        return tuple(tree[n] for n in self.names or ())

    def unlayered(self, layers: tuple) -> Any:
        return dict(zip(self.names or (), layers, strict=True))

    def next_logits(self, before: tuple) -> Float[Array, " n"]:
        return self.nets.value[len(before) - 1](2 * before[-1] - 1) if before else self.logits

    # ---- a distribution ---------------------------------------------------------------------------------------
    def noise_law(self):
        return self.unlayered(tuple(Uniform((n,)) for n in self._widths()))

    def transform(self, noise):
        drawn = ()
        for u in self.layers(noise):
            logits = self.next_logits(drawn)
            drawn = (*drawn, (u > jax.nn.sigmoid(-logits)).astype(logits.dtype))
        return self.unlayered(drawn)

    def layer_log_probs(self, draw: Any) -> tuple[Float[Array, ""], ...]:
        """log q(h_l | h_{l-1}) of each layer."""
        h = self.layers(draw)
        return tuple(bernoulli_log_prob(self.next_logits(h[:i]), h[i]).sum() for i in range(len(h)))

    def log_factors(self, draw):
        names = self.names or ()
        read = [names[max(0, i - 1) : i + 1] for i in range(len(names))]
        return list(zip(read, self.layer_log_probs(draw), strict=True))

    def log_prob(self, draw):
        return sum(self.layer_log_probs(draw), jnp.zeros((), self.logits.dtype))

    def support(self):
        """All draws."""
        widths = self._widths()
        n = sum(widths)
        listed("Layers", 2**n)
        states = np.array(list(itertools.product([0.0, 1.0], repeat=n))).reshape(-1, n)
        parts = np.split(states, np.cumsum(widths)[:-1], axis=1)
        return self.unlayered(tuple(jnp.asarray(p, self.logits.dtype) for p in parts))
