"""Latent-variable model: a prior, and a decoder whose parameters are point estimates."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..families.base import AbstractDistribution
from ..families.discrete import Bernoulli
from ..families.layered import Layers
from ..families.mean_field import MeanField
from ..nets import MLP, FromBits, Reads
from ..tree import Frozen
from .base import AbstractModel
from .likelihoods import LIKELIHOODS, AbstractLikelihood


class LatentVariable(AbstractModel):
    """p(x, z) = p(z) p(x | decoder(z)), one latent a row; the decoder's arrays are trained with q.

    Arguments:  prior: any jensen distribution (`Bernoulli(logits)`, `MeanField(shape, scale=1.)`), or an int: N(0, I)
                in so many dimensions.   decoder: any Equinox module z -> outputs of the likelihood.
                likelihood: "bernoulli" | "gaussian" | "poisson" with `shape`, or an `AbstractLikelihood`.
                shape: shape of one row of data.   train_prior: learn the prior's parameters too.
    Facts:      MOMENT_PRIOR (closed-form KL) if the prior has MOMENT_LOG_PROB; GENERATIVE.
    Reference:  Kingma and Welling (2014), equation 7.  [kingma2014vae]
    """

    prior: AbstractDistribution | Frozen[AbstractDistribution]
    decoder: Callable
    likelihood: AbstractLikelihood
    plated: bool = eqx.field(static=True)

    def __init__(
        self,
        prior,
        decoder,
        likelihood: AbstractLikelihood | str = "bernoulli",
        *,
        shape=None,
        train_prior: bool = False,
    ):
        if isinstance(prior, int):
            prior = MeanField((prior,), scale=1.0)
        self.prior = prior if train_prior else Frozen(prior)
        self.decoder, self.plated = decoder, True
        self.likelihood = _likelihood(likelihood, shape)
        out = eqx.filter_eval_shape(decoder, self.latents)
        if getattr(out, "shape", None) != (self.likelihood.n_outputs,):
            raise ModelError(
                explain(
                    f"`LatentVariable` with a {type(self.likelihood).__name__} of shape {self.likelihood.shape}",
                    f"the decoder returns {getattr(out, 'shape', type(out))}",
                    "its output parametrises the likelihood of one row",
                    f"a decoder that returns an array of shape ({self.likelihood.n_outputs},)",
                )
            )

    @classmethod
    def mlp(
        cls,
        key: Array,
        n_latents: int,
        shape: tuple[int, ...],
        likelihood: AbstractLikelihood | str = "bernoulli",
        *,
        hidden=(200, 200),
        activation="relu",
    ):
        """N(0, I) prior and an MLP decoder."""
        like = _likelihood(likelihood, shape)
        return cls(n_latents, MLP(key, n_latents, hidden, like.n_outputs, activation=activation), like)

    @classmethod
    def belief_net(
        cls,
        key: Array,
        widths: Sequence[int] = (200, 200),
        shape: tuple[int, ...] = (784,),
        likelihood: AbstractLikelihood | str = "bernoulli",
        *,
        hidden: Sequence[int] = (),
        activation: str = "tanh",
        mean: Any = None,
    ):
        """A sigmoid belief network: layers of binary units above the data, all weights trained.

        Definition: p(h_L) ... p(h_1 | h_2) p(x | h_1); each conditional is a net of 2 h - 1, prior log-odds start at 0.
        Arguments:  widths: units of each layer, the one next to the data first.   hidden, activation: hidden layers
                    of each net; () makes the network linear.   mean: of the rows, where the decoder's biases start.
        Latents:    one layer: an array of shape `(widths[0],)`, for q = `Amortised(Bernoulli())`; more: a dictionary
                    {"h1", "h2", ...}, h1 next to the data, for q = `Amortised(Layers(("h1", "h2", ...)))`.
        Reference:  Neal (1992); Mnih and Gregor (2014); Yin and Zhou (2019), section 4.2, for the sizes.  [neal1992belief]
        """
        if not widths:
            asked, because = "`belief_net(widths=())`", "each number is the units of one layer of latents"
            raise ModelError(explain(asked, "there is no layer", because, "widths=(200, 200)"))
        k1, k2 = jr.split(key)
        like = _likelihood(likelihood, shape)
        net = MLP(k1, widths[0], hidden, like.n_outputs, activation=activation)
        if mean is not None:
            net = eqx.tree_at(lambda m: m.biases[-1], net, like.outputs_of(jnp.ravel(jnp.asarray(mean))))
        if len(widths) == 1:
            return cls(Bernoulli(jnp.zeros(widths[0])), FromBits(net), like, train_prior=True)
        names = [f"h{i + 1}" for i in range(len(widths))]
        top_down = dict(reversed(list(zip(names, widths, strict=True))))
        prior = Layers(top_down, hidden=tuple(hidden), activation=activation, key=k2)
        return cls(prior, Reads(FromBits(net), ("h1",)), like, train_prior=True)

    @property
    def facts(self):
        own = {Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT, Fact.MINIBATCH, Fact.GENERATIVE}
        moments = {Fact.MOMENT_PRIOR} if Fact.MOMENT_LOG_PROB in self._prior.facts else set()
        return frozenset(own | moments | (self._prior.facts & {Fact.FACTORS}))

    @property
    def _prior(self) -> AbstractDistribution:
        return self.prior.value if isinstance(self.prior, Frozen) else self.prior

    @property
    def latents(self) -> PyTree:
        return jax.eval_shape(lambda: self._prior.sample(jr.key(0)))

    @property
    def site_kinds(self) -> dict[str, str]:
        """The prior's kind of draws, which q's must share; one site called "z" if its draws are not named."""
        factors = getattr(self._prior, "sites", None) or getattr(self._prior, "names", None) or ["z"]
        names = [s for n in factors for s in ((n,) if isinstance(n, str) else n)]
        return {s: self._prior.kind_of(s) for s in names}

    @property
    def bottom_up(self) -> tuple[str, ...]:
        """Names of the prior's layers against its order, the one next to the data first; () unless it is layered."""
        prior: Any = self._prior
        chained = Fact.LAYERS in prior.facts and Fact.PRODUCT not in prior.facts and prior.n_layers > 1
        return tuple(reversed(prior.names)) if chained else ()

    def log_density(self, z, x):
        return self._prior.log_prob(z) + self.log_likelihood(z, x)

    def log_factors(self, z, x):
        """log p(z) factor by factor, and log p(x | z), which reads what the decoder's `reads` names (all, without)."""
        factors = self._prior.log_factors(z)
        every = tuple(s for sites, _ in factors for s in sites)
        return [*factors, (getattr(self.decoder, "reads", every), self.log_likelihood(z, x))]

    def log_likelihood(self, z: PyTree, x: PyTree) -> Float[Array, ""]:
        """log p(x | z) of one row."""
        return self.likelihood.log_prob(self.decoder(z), x)

    def expected_log_prior(self, mean: PyTree, variance: PyTree) -> Float[Array, ""]:
        """E log p(z) when z has these marginal moments (MOMENT_PRIOR)."""
        return self._prior.expected_log_prob(mean, variance)

    def constrain(self, z):
        return z

    def decode(self, z: PyTree) -> Array:
        """E[x | z]."""
        return self.likelihood.mean(self.decoder(z))

    def sample(self, key: Array) -> Array:
        """One row x from the model."""
        return self.sample_joint(key)[1]

    def sample_joint(self, key: Array) -> tuple[PyTree, Array]:
        """A latent from the prior, and a row from it: (z, x) ~ p(z) p(x | z) (GENERATIVE)."""
        k1, k2 = jr.split(key)
        z = self._prior.latent(self._prior.sample(k1))
        return z, self.likelihood.sample(k2, self.decoder(z))


def _likelihood(likelihood, shape) -> AbstractLikelihood:
    if isinstance(likelihood, AbstractLikelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        asked = f"`likelihood={likelihood!r}`"
        raise ModelError(explain(asked, "it is unknown", "it gives p(x | z) its form", f"one of {sorted(LIKELIHOODS)}"))
    if shape is None:
        asked = f"`likelihood={likelihood!r}` without `shape`"
        raise ModelError(
            explain(asked, "the shape of a row is missing", "the outputs must fit a row", "shape=(784,), say")
        )
    return LIKELIHOODS[likelihood](tuple(shape))
