"""What the energy-based models with the scikit-learn API share."""

import abc
import dataclasses
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from sklearn.utils.validation import check_is_fitted

from ..algorithms.contrastive_divergence import ContrastiveDivergence
from ..diagnostics.partition import LogPartition
from ..errors import DataError, check_count, check_shares, explain
from ..fit.minibatch import steps_per_epoch
from .table import AbstractScaledModel, check_choice, chosen_law

VISIBLES = "auto", "bernoulli", "gaussian", "categorical"


class AbstractEnergyModel(AbstractScaledModel):
    """A Boltzmann machine with its fit. A concrete class writes `__init__`, with the options below among its arguments,
    and `_fit_rows`.

    Arguments of all:
        visible: "bernoulli" for data in [0, 1], "gaussian" for the rest (learned variances; columns are standardised on the
            way in and restored on the way out), "categorical" (one-hot groups of n_categories columns), "auto": the
            first of the two that applies.
        method: "pcd", "cd" or "parallel-tempering".   k: Gibbs sweeps a step.   n_chains: persistent chains; None:
            batch_size.   weight_decay, sparsity, centred: as `jensen.algorithms.ContrastiveDivergence`.
        learning_rate: a step size, an Optax transformation, or None: 0.05 (real data: 0.001), falling linearly to 0.
        n_iter: passes over the data.   batch_size: rows a step.
        n_temperatures, n_runs: of annealed importance sampling, for log Z (exact up to 2^20 states of the smaller side).
        random_state: seed or `RandomState`.   progress: a progress bar; None: only at a terminal.
    Attributes: fit_: the `EnergyFit`, in standardised units.   verdict_, reasons_, visible_, n_iter_, n_features_in_.
        history_: the pseudo log-likelihood at every step, nats, whole data, standardised units.
        components_, intercept_hidden_, intercept_visible_, h_samples_: weights (hidden, visible), biases and persistent
        hidden states of the layer next to the data, as scikit-learn's `BernoulliRBM` has them.
    """

    modelled_as: ClassVar[type] = np.float32
    counts: ClassVar[tuple[str, ...]] = ("k", "n_iter", "batch_size", "n_temperatures", "n_runs")

    visible: str
    n_categories: int | None
    method: str
    k: int
    n_chains: int | None
    weight_decay: float
    sparsity: tuple[float, float] | None
    centred: bool
    learning_rate: Any
    n_iter: int
    batch_size: int
    n_temperatures: int
    n_runs: int
    progress: bool | None

    @abc.abstractmethod
    def _fit_rows(self, rows: np.ndarray) -> Any:
        """The `EnergyFit` to these rows, as they are modelled."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on the rows of X, shape (n, d); y is ignored.  Raises: DataError, OptionError (ValueErrors)."""
        self._check_options()
        self._ignored(X, y)
        given, X = X, self._rows(X, reset=True)
        self.visible_ = chosen_law(self.visible, X)
        self._start_scaling(X, self.visible_ == "gaussian")
        self._seed = self._drawn_seed()
        self._take(self._fit_rows(self._for_fit(given, self._standardised(X), self.visible_)))
        return self

    def _take(self, fit: Any) -> None:
        self.fit_, self.history_, self._log_z = fit, fit.history, None
        self.n_iter_ = self.n_iter
        m = fit.machine
        self.components_ = np.asarray(m.weights[0]).T
        self.intercept_visible_, self.intercept_hidden_ = np.asarray(m.biases[0]), np.asarray(m.biases[1])
        self._n_features_out = fit.n_hidden
        if fit.chains is not None:
            self.h_samples_ = np.asarray(fit.chains[0])

    @property
    def verdict_(self) -> Any:
        check_is_fitted(self, "fit_")
        return self.fit_.verdict

    @property
    def reasons_(self) -> list[str]:
        """Why, in sentences; the worst first."""
        return self.fit_.reasons

    # ---- rows -------------------------------------------------------------------------------------------------
    def transform(self, X: Any) -> Float[np.ndarray, "n hidden"]:
        """E[h | x] of each row, the layers one after another: exact for an RBM, by mean field for a DBM."""
        check_is_fitted(self, "fit_")
        return np.concatenate(self.fit_.hidden_means(self._known(X)), 1)

    def inverse_transform(self, Z: Any) -> Float[np.ndarray, "n d"]:
        """E[x | h] of hidden values, in the units of X: of a DBM those next to the data are read."""
        check_is_fitted(self, "fit_")
        Z = np.atleast_2d(np.asarray(Z, np.float64))
        if Z.shape[1] != self._n_features_out:
            asked, wrong = f"`inverse_transform` of shape {Z.shape}", f"there are {self._n_features_out} hidden units"
            raise DataError(explain(asked, wrong, "rows are hidden layers", f"{self._name.lower()}.transform(X)"))
        return self._restored(self.fit_.decode(Z))

    def gibbs(self, X: Any, n_steps: int = 1) -> Float[np.ndarray, "n d"]:
        """Rows after `n_steps` sweeps of Gibbs sampling from X."""
        check_is_fitted(self, "fit_")
        check_count("n_steps", n_steps, f"{self._name}.gibbs")
        return self._restored(self.fit_.gibbs(self._known(X), n_steps, self._drawn_seed()))

    def sample(self, n_samples: int = 1, n_steps: int = 1000) -> Float[np.ndarray, "n d"]:
        """Fantasy particles: rows from Gibbs chains, `n_steps` sweeps on from the persistent ones."""
        check_is_fitted(self, "fit_")
        check_count("n_samples", n_samples, f"{self._name}.sample")
        return self._restored(self.fit_.sample(int(n_samples), self._drawn_seed(), n_steps=n_steps))

    # ---- density ----------------------------------------------------------------------------------------------
    def log_partition(self) -> LogPartition:
        """log Z with its interval, in standardised units, computed once."""
        check_is_fitted(self, "fit_")
        if self._log_z is None:
            options = {"n_chains": max(2, self.n_runs), "temperatures": max(2, self.n_temperatures)}
            self._log_z = self.fit_.log_partition(**options)
        return self._log_z

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """log p(x) of each row, nats, in the units of X, with log Z by annealed importance sampling (exact if small); of
        a DBM the variational bound. Larger is better."""
        check_is_fitted(self, "fit_")
        return self.fit_.score_samples(self._known(X), self.log_partition()) - self._log_jacobian()

    # ---- data in, data out ------------------------------------------------------------------------------------
    def _known(self, X: Any) -> np.ndarray:
        """Rows of the kind that the fitted model knows, as they are modelled."""
        X = self._rows(X)
        if self.visible_ == "bernoulli":
            check_shares(f"`{self._name}` of Bernoulli units", X, "they are shares of 1", 'visible="gaussian"')
        return self._standardised(X)

    def _learning(self) -> dict[str, Any]:
        """Options of `fit_energy`."""
        tempering: dict[str, Any] = {"n_temperatures": 10} if self.method == "parallel-tempering" else {}
        method = ContrastiveDivergence(
            self.k, self.method != "cd", n_chains=self.n_chains, weight_decay=self.weight_decay,
            sparsity=self.sparsity, centred=self.centred, **tempering,
        )  # fmt: skip
        return {
            "method": method, "optimizer": self.learning_rate, "batch_size": self.batch_size, "seed": self._seed,
            "progress": self.progress,
        }  # fmt: skip

    def _n_steps(self, n: int, n_iter: int) -> int:
        return n_iter * steps_per_epoch(n, min(self.batch_size, n))

    # ---- scikit-learn's protocol ------------------------------------------------------------------------------
    def _check_options(self) -> None:
        for name in self.counts:
            check_count(name, getattr(self, name), self._name)
        for name, choices in (("visible", VISIBLES), ("method", ("cd", "pcd", "parallel-tempering"))):
            check_choice(self._name, name, getattr(self, name), choices)

    def __getstate__(self):
        state: Any = super().__getstate__()
        few = lambda rows: np.asarray(rows)[:1000]  # what a verdict reads
        light = lambda f: dataclasses.replace(f, rows=few(f.rows))
        return {k: light(v) if k == "fit_" else v for k, v in state.items()}
