"""What the models fitted by EM share under the scikit-learn API."""

import abc
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jaxtyping import Float
from sklearn.utils.validation import check_is_fitted

from ..diagnostics.checks import Check, Judged, Verdict
from ..errors import check_count
from ..fit.em import EMFit, em
from ..models.em import AbstractEM
from .table import AbstractTableModel, rows_of


class AbstractEMModel(AbstractTableModel):
    """A model fitted by `jensen.em`. A concrete class writes `__init__`, with the options below, `_model`, `_publish`.

    Arguments of all:
        n_init: starts run at once, half of them from k-means, the best kept; None: as many as `jensen.em` finds needed.
        max_iter: iterations.
        tol: nats a row: ends when no more than this is left to gain, by Aitken's extrapolation (not scikit-learn's gain
            of the last iteration).   batch_size: None, or rows a batch of stochastic EM.
        random_state: seed or `RandomState`.   progress: a progress bar; None: only at a terminal.
    Attributes: fit_: the `EMFit`.   verdict_, reasons_.   n_iter_, converged_, lower_bound_ (nats a row), n_features_in_.
    """

    counts: ClassVar[tuple[str, ...]] = ("n_components",)
    least_features: ClassVar[int] = 1
    missing: ClassVar[bool] = True  # may values be NaN?

    n_features_in_: int
    n_init: int | None
    max_iter: int
    tol: float
    batch_size: int | None
    progress: bool | None

    @abc.abstractmethod
    def _model(self) -> AbstractEM:
        """The model that is fitted."""

    @abc.abstractmethod
    def _publish(self, params: Any) -> None:
        """Sets the fitted attributes, from NumPy parameters."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits the rows of X, shape (n, d), NaN where missing; y is ignored. Raises DataError, OptionError."""
        self._check_counts()
        self._ignored(X, y)
        return self._fitted(self._rows(X, reset=True))

    def _check_counts(self) -> None:
        for name in (*self.counts, "max_iter", *(() if self.n_init is None else ("n_init",))):
            check_count(name, getattr(self, name), self._name)

    def _fitted(self, rows: np.ndarray) -> Self:
        model = self._model()
        starts = self.n_init if model.bound_to(rows).several_optima else None
        options: Any = {"tol": self.tol, "batch_size": self.batch_size, "progress": self.progress}
        return self._take(em(model, rows, n_starts=starts, n_iter=self.max_iter, seed=self._drawn_seed(), **options))

    def _take(self, found: EMFit) -> Self:
        self.fit_, self.verdict_, self.reasons_ = found, found.verdict, found.reasons
        self.n_iter_, self.converged_ = found.n_iter, found.converged
        self.lower_bound_ = found.objective / found.n_rows
        self._publish(jax.tree.map(np.asarray, found.params))
        return self

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """log p(x) of each row, nats, of what is observed of it."""
        return self._found.log_prob(self._rows(X))

    def bic(self, X: Any) -> float:
        """-2 log p(X) + p log n; smaller is better."""
        rows = self._rows(X)
        return -2 * float(self._found.log_prob(rows).sum()) + self._found.n_parameters * float(np.log(len(rows)))

    def aic(self, X: Any) -> float:
        """-2 log p(X) + 2 p; smaller is better."""
        return -2 * float(self._found.log_prob(self._rows(X)).sum()) + 2 * self._found.n_parameters

    def impute(self, X: Any) -> Float[np.ndarray, "n d"]:
        """X with E[x | what is observed of the row] where it is NaN."""
        found = self._found
        return found._apply(type(found.model).imputed, self._rows(X))  # type: ignore[attr-defined]

    def _drawn(self, n_samples: int) -> tuple[np.ndarray, Any]:
        check_count("n_samples", n_samples, f"{self._name}.sample")
        return self._found.sample(n_samples, self._drawn_seed())

    @property
    def _found(self) -> EMFit:
        check_is_fitted(self)
        return self.fit_

    def _rows(self, X: Any, reset: bool = False) -> np.ndarray:
        options: dict[str, Any] = {"ensure_min_samples": 2, "ensure_min_features": self.least_features} if reset else {}
        return rows_of(self, X, missing=self.missing, reset=reset, **options)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing
        return tags


def bare_fit(model: AbstractEM, params: Any) -> EMFit:
    """An `EMFit` around parameters that another library has fitted."""
    why = "The parameters were fitted elsewhere: nothing is known of the iterations."
    judged = Judged(Verdict.DOUBTFUL, [Check("ending", 1, why)])
    nan, one = float("nan"), np.array([float("nan")])
    return EMFit(
        model,
        params,
        nan,
        nan,
        one[:0],
        0,
        True,
        one,
        judged,
        model.n_parameters(params),
        1.0,
        0.0,
        "converged",
    )
