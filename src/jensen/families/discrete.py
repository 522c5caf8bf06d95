"""Products of Bernoullis and of categoricals."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError, explain
from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain, AbstractVar
from .noise import Uniform
from .weak import one_by_one

MAX_STATES = 2**16
_FACTS = PLAIN | {Fact.ENUMERABLE, Fact.ENTROPY, Fact.MOMENTS, Fact.MOMENT_LOG_PROB, Fact.LAYERS, Fact.WEAK_DERIVATIVE}


def _one_array(name: str, latents) -> tuple[int, ...]:
    layout = Layout(latents)
    if len(layout.shapes) != 1 or jax.tree.structure(layout.spec()) != jax.tree.structure(0):
        raise ModelError(
            explain(
                f"`{name}` for latents {layout.shape_tree()}",
                "it is a distribution over one array",
                "sites of a model are named",
                f'Product({{"site": {name}(), ...}})',
            )
        )
    return layout.shapes[0]


def _fits(name: str, logits: Array | None, shape: tuple[int, ...]) -> None:
    if logits is not None and logits.shape != shape:
        raise ModelError(
            explain(
                f"`{name}` with logits of shape {logits.shape} for latents of shape {shape}",
                "the shapes differ",
                "q must be a distribution over the model's latents",
                f"{name}(), or logits of shape {shape}",
            )
        )


def listed(name: str, n_states: int) -> None:
    if n_states > MAX_STATES:
        raise ModelError(
            explain(
                f"the support of `{name}`",
                f"it has {n_states:.3g} states, more than {MAX_STATES}",
                "each state costs one evaluation of the model",
                "LeaveOneOut() as the gradient",
            )
        )


class AbstractOneLayer(AbstractPlain):
    """One layer of discrete variables with logits."""

    logits: AbstractVar[Array]

    @property
    def n_layers(self):
        return 1

    def layers(self, tree):
        return (tree,)

    def unlayered(self, layers):
        return layers[0]

    def next_logits(self, before):
        return self.logits

    def layer_log_probs(self, draw):
        return (self.log_prob(draw),)

    def weak_noise_law(self):
        return ()  # the expectation over one variable is exact


class Bernoulli(AbstractOneLayer):
    """Independent Bernoullis.

    Definition: q(b) = prod_d p_d^{b_d} (1 - p_d)^{1 - b_d}, p = sigmoid(logits); draws are 0. and 1. in float.
    Arguments:  logits: array of any shape; left out, zeros of the model's shape.
    Cost:       O(D) a draw; 2^D states to enumerate (at most 2^16).
    """

    logits: Float[Array, "..."]
    facts: ClassVar = _FACTS | {Fact.BINARY}

    def __init__(self, logits=None):
        self.logits = UNSIZED if logits is None else jnp.asarray(logits, default_float())

    def kind_of(self, site):
        return "binary"

    def bind(self, latents, rows, key):
        shape = _one_array("Bernoulli", latents)
        _fits("Bernoulli", self.logits, shape)
        return self if self.logits is not None else replaced(self, logits=jnp.zeros(shape, default_float()))

    def noise_law(self):
        return Uniform(self.logits.shape)

    def transform(self, noise):
        return (noise > jax.nn.sigmoid(-self.logits)).astype(self.logits.dtype)

    def log_prob(self, draw):
        return (draw * self.logits - jax.nn.softplus(self.logits)).sum()

    def weak_derivatives(self, draw, noise):
        """One flip a variable: dp (f(b = 1) - f(b = 0))."""
        flat = draw.reshape(-1)
        return one_by_one(flat, 1 - flat[None]).reshape((-1, *draw.shape)), (
            (1 - 2 * flat) * jax.nn.sigmoid(self.logits).reshape(-1)
        )

    def entropy(self):
        return (jax.nn.softplus(self.logits) - self.logits * jax.nn.sigmoid(self.logits)).sum()

    def moments(self):
        p = jax.nn.sigmoid(self.logits)
        return p, p * (1 - p)

    def expected_log_prob(self, mean, variance):
        """E log q(b) is linear in b."""
        return self.log_prob(mean)

    def support(self) -> Float[Array, "S ..."]:
        """All 2^D draws."""
        n = self.logits.size
        listed("Bernoulli", 2**n)
        states = np.array(list(itertools.product([0.0, 1.0], repeat=n))).reshape((-1, *self.logits.shape))
        return jnp.asarray(states, self.logits.dtype)


class Categorical(AbstractOneLayer):
    """Independent categoricals.

    Definition: q(k) = prod_d softmax(logits_d)_{k_d}; draws are one-hot in float, of the logits' shape.
    Arguments:  logits: shape `(..., n_categories)`; left out, zeros of the model's shape.
    Cost:       O(D C) a draw; C^D states to enumerate (at most 2^16).
    """

    logits: Float[Array, "... C"]
    facts: ClassVar = _FACTS

    def __init__(self, logits=None):
        self.logits = UNSIZED if logits is None else jnp.asarray(logits, default_float())
        if self.logits is not None and self.logits.ndim == 0:
            asked = "`Categorical(logits)` with a scalar"
            raise ModelError(
                explain(asked, "there is no category axis", "the last axis lists the categories", "Bernoulli(logits)")
            )

    def kind_of(self, site):
        return "category"

    def bind(self, latents, rows, key):
        shape = _one_array("Categorical", latents)
        _fits("Categorical", self.logits, shape)
        return self if self.logits is not None else replaced(self, logits=jnp.zeros(shape, default_float()))

    def noise_law(self):
        return Uniform(self.logits.shape[:-1])

    def transform(self, noise):
        """Inverse CDF: one uniform a variable, monotone, so that stratified and quasi-random plans help."""
        edges = jnp.cumsum(jax.nn.softmax(self.logits), -1)[..., :-1]
        index = (noise[..., None] > edges).sum(-1)
        return jax.nn.one_hot(index, self.logits.shape[-1], dtype=self.logits.dtype)

    def log_prob(self, draw):
        return (draw * jax.nn.log_softmax(self.logits)).sum()

    def weak_derivatives(self, draw, noise):
        """Every other category of each variable: sum_c dp_c (f(c) - f(draw))."""
        flat, p = draw.reshape(-1, draw.shape[-1]), jax.nn.softmax(self.logits).reshape(-1, draw.shape[-1])
        others = jnp.stack([jnp.roll(flat, s, -1) for s in range(1, draw.shape[-1])])
        return one_by_one(flat, others).reshape((-1, *draw.shape)), (others * p).sum(-1).reshape(-1)

    def entropy(self):
        log_p = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_p) * log_p).sum()

    def moments(self):
        p = jax.nn.softmax(self.logits)
        return p, p * (1 - p)

    def expected_log_prob(self, mean, variance):
        """E log q(k) is linear in the one-hot k."""
        return self.log_prob(mean)

    def support(self) -> Float[Array, "S ... C"]:
        """All C^D draws."""
        n, c = int(np.prod(self.logits.shape[:-1])), self.logits.shape[-1]
        listed("Categorical", c**n)
        rows = np.eye(c)[np.array(list(itertools.product(range(c), repeat=n)), int).reshape(c**n, n)]
        return jnp.asarray(rows.reshape((-1, *self.logits.shape)), self.logits.dtype)
