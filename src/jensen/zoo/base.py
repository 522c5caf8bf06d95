"""What the models with the scikit-learn API share: rows in and out, scaling, scoring, the protocol."""

import abc
import dataclasses
from collections.abc import Collection
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import optax
from jaxtyping import Float
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ..diagnostics.likelihood import with_density
from ..errors import DataError, OptionError, check_count, check_shares, explain, is_count
from ..families.base import AbstractFamily
from ..fit.fit import fit as fit_parts
from ..gradients.base import AbstractEstimator
from ..models.latent_variable import LatentVariable
from ..nets import ACTIVATIONS
from ..objectives.base import AbstractObjective
from ..tree import Layout
from . import rowwise
from .table import AbstractScaledModel, check_choice, chosen_law

EPOCHS, FEWEST_STEPS, MOST_STEPS = 100, 1_000, 20_000
STEP_SIZE = 1e-3
LIKELIHOODS = "auto", "bernoulli", "gaussian"


class Composed(NamedTuple):
    """What a model of the zoo is made of: the parts, and options of `jensen.fit` that are its own."""

    model: LatentVariable
    family: AbstractFamily
    options: dict[str, Any]


class AbstractLatentModel(AbstractScaledModel):
    """A prior over latents and a decoder, fitted together with q(z | x). A concrete class writes `__init__`, with the
    options below among its arguments, and `_compose`.

    Arguments of all:
        likelihood: "bernoulli" for data in [0, 1], "gaussian" for the rest (one noise scale a column; columns are
            standardised on the way in and restored on the way out), "auto": the first of the two that applies.
        objective: a bound or its name.   gradient: an estimator or its name; None: the one of least variance that is
            valid.   n_samples: draws of z a row and step.
        n_steps: optimiser steps; None: 100 passes over the data, at least 1,000 and at most 20,000 steps.
        batch_size: rows a step; None: all.   optimizer: an Optax transformation or a step size; None: Adam, 1e-3.
        n_importance: draws a row in `score_samples` and `elbo`.
        random_state: seed or `RandomState`.   progress: a progress bar; None: only at a terminal.
    Attributes: fit_: the `jensen.Fit` (verdict, report, k-hat), in standardised units; pickled without its rows.
        verdict_, reasons_, likelihood_, n_iter_, n_features_in_, feature_names_in_.   history_: the bound at every step, nats,
        whole data, units of X.   center_, scale_: of the columns, (X - center_) / scale_ is what is modelled (0 and 1
        for "bernoulli"; a constant column keeps scale 1).
    """

    counts: ClassVar[tuple[str, ...]] = ()  # the concrete class's own options that are counts
    widths_of: ClassVar[tuple[str, ...]] = ("hidden",)  # its options that list counts

    hidden: Any
    activation: str
    likelihood: str
    objective: AbstractObjective | str | None
    gradient: AbstractEstimator | str | None
    n_samples: int | None
    n_steps: int | None
    batch_size: int | None
    optimizer: optax.GradientTransformation | float | None
    n_importance: int
    progress: bool | None

    @abc.abstractmethod
    def _compose(self, rows: np.ndarray) -> Composed:
        """The parts for these rows, as they are modelled."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains model and q on the rows of X, shape (n, d); y is ignored.

        Raises: DataError, OptionError and IncompatibleComposition, the first two of which are ValueErrors.
        """
        self._check_options()
        self._ignored(X, y)
        given, X = X, self._rows(X, reset=True)
        self.likelihood_ = chosen_law(self.likelihood, X)
        self._check_support(X)
        self._start_scaling(X, self.likelihood_ == "gaussian")
        self._seed = self._drawn_seed()
        rows = self._standardised(X)
        model, family, options = self._compose(rows)
        common = {
            "family": family, "objective": self.objective, "gradient": self.gradient, "n_samples": self.n_samples,
            "optimizer": STEP_SIZE if self.optimizer is None else self.optimizer,
            "n_steps": _default_steps(len(X), self.batch_size) if self.n_steps is None else self.n_steps,
            "batch_size": self.batch_size, "seed": self._seed, "progress": self.progress,
        }  # fmt: skip
        self.fit_ = fit_parts(model, self._for_fit(given, rows, self.likelihood_), **(common | options))
        self.verdict_, self.reasons_ = self.fit_.verdict, self.fit_.reasons
        self.n_iter_ = len(self.fit_.history)
        self.history_ = self.fit_.history - len(X) * self._log_jacobian()
        self._n_features_out = Layout(model.latents).size
        return self

    # ---- encoder and decoder ----------------------------------------------------------------------------------
    def transform(self, X: Any) -> Float[np.ndarray, "n latent"]:
        """E[z] under q(z | x) of each row: means of continuous latents, probabilities of discrete ones. Of layers, the
        deeper ones by a mean-field pass (each given the probabilities of the layer before), one after another."""
        _, family = self._parts()
        return rowwise.encode(family, self._standardised(self._rows(X)))

    def inverse_transform(self, Z: Any) -> Float[np.ndarray, "n d"]:
        """E[x | z] of each latent, in the units of X; probabilities are decoded as they are, not drawn from."""
        model, _ = self._parts()
        Z = np.asarray(check_array(Z, input_name="Z", estimator=self))
        if Z.shape[1] != self._n_features_out:
            asked = f"`inverse_transform` of an array of shape {Z.shape}"
            wrong = f"its rows are not latents, which have {self._n_features_out} coordinates"
            raise DataError(
                explain(asked, wrong, "the decoder maps latents to data", f"{self._name.lower()}.transform(X)")
            )
        return self._restored(rowwise.decode(model, Z))

    # ---- density ----------------------------------------------------------------------------------------------
    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """log p(x) of each row by importance sampling from q(z | x), nats, in the units of X; larger is better.

        Definition: log (1/K) sum_k p(x, z_k) / q(z_k | x), K = n_importance.   Bias: below log p(x) on average, O(1/K).
        A row's value is a function of the fitted model, `random_state` and that row alone. For "bernoulli" data
        strictly between 0 and 1 it is an expected log-likelihood of noisy bits, not a log density.
        """
        return self._bounds(X)[0]

    def elbo(self, X: Any) -> float:
        """Evidence lower bound of all rows together, nats, in the units of X, from n_importance draws a row."""
        return float(np.sum(self._bounds(X)[1], dtype=np.float64))

    def sample(self, n_samples: int = 1) -> Float[np.ndarray, "n d"]:
        """Draws rows from p(x), shape (n_samples, d); the same ones at each call if `random_state` is a number."""
        model, _ = self._parts()
        check_count("n_samples", n_samples, f"{self._name}.sample")
        seed = self._drawn_seed()
        return self._restored(rowwise.sample(model, int(n_samples), seed))

    def _parts(self) -> tuple[Any, Any]:
        """(model, family), fitted."""
        check_is_fitted(self)
        return self.fit_.model, self.fit_.family

    # ---- data in, data out ------------------------------------------------------------------------------------
    def _check_support(self, X: np.ndarray) -> None:
        if self.likelihood_ == "bernoulli":
            because = "a probability mass on {0, 1} says nothing of values outside [0, 1]"
            instead = 'likelihood="gaussian", or X scaled to [0, 1]'
            check_shares(f'`{self._name}` with the "bernoulli" likelihood', X, because, instead)

    def _bounds(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        model, family = self._parts()
        family = with_density(family)
        X = self._rows(X)
        self._check_support(X)
        check_count("n_importance", self.n_importance, self._name)
        rows = self._standardised(X)
        log_mean, mean_log = rowwise.bounds(model, family, rows, int(self.n_importance), self._seed)
        return log_mean - self._log_jacobian(), mean_log - self._log_jacobian()

    # ---- scikit-learn's protocol ------------------------------------------------------------------------------
    def _check_options(self) -> None:
        required = ("n_importance", *self.counts)
        for name in (*required, "n_samples", "n_steps", "batch_size"):
            value = getattr(self, name)
            if value is not None or name in required:
                check_count(name, value, self._name)
        for name in self.widths_of:
            value = getattr(self, name)
            listed = isinstance(value, Collection) and not isinstance(value, str) and all(map(is_count, value))
            if not listed or (name == "widths" and not len(value)):
                wrong = "it is not a sequence of positive whole numbers"
                because, instead = "it lists the widths of the layers", f"{name}=(200, 200)"
                raise OptionError(explain(f"`{self._name}({name}={value!r})`", wrong, because, instead))
        for name, choices in (("activation", sorted(ACTIVATIONS)), ("likelihood", list(LIKELIHOODS))):
            check_choice(self._name, name, getattr(self, name), choices)

    def __getstate__(self):
        state: Any = super().__getstate__()
        return {k: dataclasses.replace(v, rows=None) if k == "fit_" else v for k, v in state.items()}


def _default_steps(n: int, batch_size: int | None) -> int:
    an_epoch = 1 if batch_size is None else -(-n // batch_size)
    return int(np.clip(EPOCHS * an_epoch, FEWEST_STEPS, MOST_STEPS))
