"""Variational autoencoder with the scikit-learn API."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import optax

from ..compiled import key_for
from ..families import Amortised
from ..gradients.base import AbstractEstimator
from ..methods import AbstractMethod
from ..models.latent_variable import LatentVariable
from ..objectives import ELBO
from ..objectives.base import AbstractObjective
from .base import AbstractLatentModel, Composed


class VAE(AbstractLatentModel):
    """Variational autoencoder (VAE): a nonlinear factor analysis with a density of its own.

    Definition: p(x) = int N(z; 0, I) p(x | decoder(z)) dz, fitted together with q(z | x) = N(mu(x), diag sigma(x)^2) by
                E_q[log p(x | z)] - KL(q(z | x) || p(z)); decoder and encoder are multilayer perceptrons.
    Arguments:
        latent_dim: dimension of z.   hidden: widths of the hidden layers of both networks; () makes them linear.
        activation: a name in `jensen.nets.ACTIVATIONS`.
        likelihood: "bernoulli" for data in [0, 1], "gaussian" for the rest (one noise scale a column; columns are
            standardised on the way in and restored on the way out), "auto": the first of the two that applies.
        method: None: stochastic gradients of `objective` by `gradient`; or "hoffman", "vcd", `jensen.methods.VCD(n_steps=4)`:
            the decoder learns from draws that MCMC improves. Then `transform` averages improved draws, while
            `score_samples` and `elbo` are those of q before the chains, which has a density.
        objective: a bound or its name; None: ELBO("kl").   gradient: an estimator or its name; None: the one of least
            variance that is valid.
        n_samples: draws of z a row and step; None: 1 (16 for nonlinear bounds such as IWAE()).
        n_steps: optimiser steps; None: 100 passes over the data, at least 1,000 and at most 20,000 steps.
        batch_size: rows a step; None: all.   optimizer: an Optax transformation or a step size; None: Adam, 1e-3.
        n_importance: draws a row in `score_samples` and `elbo`.
        random_state: seed or `RandomState`.   progress: a progress bar; None: only at a terminal.
    Attributes: fit_: the `jensen.Fit` (verdict, report, k-hat), in standardised units; pickled without its rows.
        verdict_, reasons_, likelihood_, n_iter_, n_features_in_, feature_names_in_.   history_: the bound at every step, nats,
        whole data, units of X.   center_, scale_: of the columns, (X - center_) / scale_ is what is modelled (0 and 1
        for "bernoulli"; a constant column keeps scale 1).
    Notes:      Few rows are overfitted by long training, with a Gaussian likelihood badly: compare `score` on rows held
                out, and choose a smaller `n_steps` or `hidden`, or `optax.adamw(1e-3, weight_decay=1.0)`.
    Example:    >>> vae = VAE(latent_dim=2).fit(X)                     # doctest: +SKIP
                >>> vae.transform(X), vae.score(X_test), vae.sample(5)  # doctest: +SKIP
    Reference:  Kingma and Welling (2014); Burda, Grosse and Salakhutdinov (2016) for `score_samples`.  [kingma2014vae]
    """

    latent_dim: int
    method: str | AbstractMethod | None
    counts: ClassVar = ("latent_dim",)

    def __init__(
        self,
        latent_dim: int = 10,
        *,
        hidden: Sequence[int] = (200, 200),
        activation: str = "relu",
        likelihood: str = "auto",
        method: str | AbstractMethod | None = None,
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
        nets: dict[str, Any] = {"hidden": tuple(self.hidden), "activation": self.activation}
        key, shape = key_for(self._seed, "decoder"), (rows.shape[1],)
        model = LatentVariable.mlp(key, int(self.latent_dim), shape, self.likelihood_, **nets)
        options = {"objective": ELBO("kl")} if self.objective is None else {}
        if self.method is not None:
            options = {"method": self.method}
        return Composed(model, Amortised(**nets), options)
