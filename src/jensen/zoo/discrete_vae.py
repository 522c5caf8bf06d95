"""Variational autoencoder with discrete latents, with the scikit-learn API."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from ..compiled import key_for
from ..errors import OptionError, explain
from ..families import Amortised, Bernoulli, Categorical
from ..gradients.base import AbstractEstimator
from ..models.latent_variable import LatentVariable
from ..nets import MLP, Centred, FromBits
from ..objectives.base import AbstractObjective
from .base import AbstractLatentModel, Composed
from .sigmoid_belief_net import bound_options


class DiscreteVAE(AbstractLatentModel):
    """Variational autoencoder whose code is discrete: bits, or variables of several categories.

    Definition: p(x) = sum_z p(z) p(x | decoder(z)), p(z) uniform, q(z | x) a product of Bernoullis or categoricals
                whose log-odds an encoder computes; decoder and encoder are multilayer perceptrons.
    Arguments:
        latent_dim: variables in the code.   n_categories: of each; 2: bits.
        hidden: widths of the hidden layers of both networks; () makes them linear.   activation: a name in
            `jensen.nets.ACTIVATIONS`.
        likelihood: "bernoulli" for data in [0, 1], "gaussian" for the rest (standardised columns), "auto".
        objective: a bound or its name; None: the ELBO.   gradient: an estimator or its name; None: `LeaveOneOut()`, or
            `Enumerate()` for codes of few states.
        n_samples: draws a row and step; None: 4 (16 for nonlinear bounds such as IWAE()).
        n_steps: None: 100 passes over the data, at least 1,000 and at most 20,000 steps.   batch_size: rows a step;
            None: all.   optimizer: an Optax transformation or a step size; None: Adam, 1e-3.
        n_importance: draws a row in `score_samples` and `elbo`.   random_state, progress: as everywhere.
    Attributes: as `VAE`. `transform` gives probabilities: of each bit, or of every category of the first variable, then
        of the second, ...
    Example:    >>> vae = DiscreteVAE(20).fit(X)                       # doctest: +SKIP
                >>> (vae.transform(X) > 0.5).astype(int)               # doctest: +SKIP
    Reference:  Mnih and Gregor (2014); Jang, Gu and Poole (2017) for categorical codes.  [mnih2014nvil]
    """

    latent_dim: int
    n_categories: int
    counts: ClassVar = ("latent_dim", "n_categories")

    def __init__(
        self,
        latent_dim: int = 20,
        n_categories: int = 2,
        *,
        hidden: Sequence[int] = (200, 200),
        activation: str = "relu",
        likelihood: str = "auto",
        objective: AbstractObjective | str | None = None,
        gradient: AbstractEstimator | str | None = None,
        n_samples: int | None = None,
        n_steps: int | None = None,
        batch_size: int | None = 100,
        optimizer: optax.GradientTransformation | float | None = None,
        n_importance: int = 500,
        random_state: int | np.random.RandomState | None = None,
        progress: bool | None = None,
    ):
        self._keep(locals())

    def _compose(self, rows: np.ndarray) -> Composed:
        if int(self.n_categories) < 2:
            asked, because = "`DiscreteVAE(n_categories=1)`", "a variable of one category says nothing"
            raise OptionError(explain(asked, "there is nothing to choose from", because, "n_categories=2 or more"))
        mean, n, c = rows.mean(0), int(self.latent_dim), int(self.n_categories)
        hidden = tuple(self.hidden)
        k1, k2 = jr.split(key_for(self._seed, "decoder"))
        bits = c == 2
        size = n if bits else n * c
        net = MLP(k1, size, hidden, mean.size, activation=self.activation)
        model = LatentVariable(
            Bernoulli(jnp.zeros(n)) if bits else Categorical(jnp.zeros((n, c))),
            FromBits(net) if bits else net,
            self.likelihood_,
            shape=mean.shape,
        )
        biases = model.likelihood.outputs_of(jnp.asarray(mean))
        model = eqx.tree_at(lambda m: (m.decoder.net if bits else m.decoder).biases[-1], model, biases)
        encoder = Centred(MLP(k2, mean.size, hidden, size, activation=self.activation), mean)
        family = Amortised(Bernoulli() if bits else Categorical(), encoder)
        return Composed(model, family, bound_options(self, closed=True))
