"""Latent-variable model: a prior, and a decoder whose parameters are point estimates."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..families.base import AbstractDistribution
from ..families.mean_field import MeanField
from ..nets import MLP
from ..tree import Frozen
from .base import AbstractModel
from .likelihoods import LIKELIHOODS, AbstractLikelihood


class LatentVariable(AbstractModel):
    """p(x, z) = p(z) p(x | decoder(z)), one latent a row; the decoder's arrays are trained with q.

    Arguments:  prior: any jensen distribution (`Bernoulli(logits)`, `MeanField(shape, scale=1.)`), or an int: N(0, I)
                in so many dimensions.   decoder: any Equinox module z -> outputs of the likelihood.
                likelihood: "bernoulli" | "gaussian" | "poisson" with `shape`, or an `AbstractLikelihood`.
                shape: shape of one row of data.   train_prior: learn the prior's parameters too.
    Facts:      MOMENT_PRIOR (closed-form KL) if the prior has MOMENT_LOG_PROB.
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

    @property
    def facts(self):
        own = {Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT, Fact.MINIBATCH}
        return frozenset(own | ({Fact.MOMENT_PRIOR} if Fact.MOMENT_LOG_PROB in self._prior.facts else set()))

    @property
    def _prior(self) -> AbstractDistribution:
        return self.prior.value if isinstance(self.prior, Frozen) else self.prior

    @property
    def latents(self) -> PyTree:
        return jax.eval_shape(lambda: self._prior.sample(jr.key(0)))

    @property
    def site_kinds(self) -> dict[str, str]:
        """The prior's kind of draws, which q's must share; one site called "z" if the prior names none."""
        names = [s for n in getattr(self._prior, "sites", ["z"]) for s in ((n,) if isinstance(n, str) else n)]
        return {s: self._prior.kind_of(s) for s in names}

    def log_density(self, z, x):
        return self._prior.log_prob(z) + self.log_likelihood(z, x)

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
        k1, k2 = jr.split(key)
        return self.likelihood.sample(k2, self.decoder(self._prior.sample(k1)))


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
