"""Hidden Markov models with the scikit-learn API: rows are steps, and `lengths` says where sequences end."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError, check_count, explain
from ..fit.em_rows import stacked
from ..models.components import AbstractComponents
from ..models.em import AbstractEM
from ..models.factorial import FactorialHMM as FactorialModel
from ..models.gaussian_components import Gaussians, dense
from ..models.markov import HiddenMarkov as MarkovModel
from .em import AbstractEMModel


class AbstractSequenceModel(AbstractEMModel):
    """X holds all steps of all sequences, one after another; `lengths` says how many each has (None: one sequence)."""

    def fit(self, X: Any, y: Any = None, lengths: Any = None) -> Self:
        """Fits the sequences; y is ignored. Raises DataError, OptionError."""
        for name in (*self.counts, "n_init", "max_iter"):
            check_count(name, getattr(self, name), self._name)
        return self._fitted(self._sequences(self._rows(X, reset=True), lengths))

    def predict_proba(self, X: Any, lengths: Any = None) -> np.ndarray:
        """P(state | the whole sequence) of each step."""
        rows = self._rows(X)
        states = self._found.posterior(self._sequences(rows, lengths))
        return np.concatenate([s[:n] for s, n in zip(states, _ends(rows, lengths), strict=True)])

    def score_samples(self, X: Any, lengths: Any = None) -> Float[np.ndarray, " n_sequences"]:
        """log p of each sequence, nats."""
        return self._found.log_prob(self._sequences(self._rows(X), lengths))

    def score(self, X: Any, y: Any = None, lengths: Any = None) -> float:
        """log p of all sequences, nats a step."""
        return float(self.score_samples(X, lengths).sum(dtype=np.float64)) / len(X)

    def bic(self, X: Any, lengths: Any = None) -> float:
        """-2 log p + p log(number of steps); smaller is better."""
        n = len(X)
        return -2 * n * self.score(X, lengths=lengths) + self._found.n_parameters * float(np.log(n))

    def aic(self, X: Any, lengths: Any = None) -> float:
        """-2 log p + 2 p; smaller is better."""
        return -2 * len(X) * self.score(X, lengths=lengths) + 2 * self._found.n_parameters

    def sample(self, n_samples: int = 1) -> tuple[Float[np.ndarray, "n d"], np.ndarray]:
        """(steps, states) of one sequence; the same at each call if `random_state` is a number."""
        return self._drawn(n_samples)

    def _sequences(self, rows: np.ndarray, lengths: Any) -> np.ndarray:
        ends = _ends(rows, lengths)
        if len(ends) == 1:
            return rows[None]
        return stacked(np.split(rows, np.cumsum(ends)[:-1])).astype(rows.dtype)


class HiddenMarkov(AbstractSequenceModel):
    """Hidden Markov model by Baum-Welch (EM); missing values are integrated out.

    Arguments:  n_components: states.   emission: "gaussian", "bernoulli", "poisson", "categorical", or components.
                covariance_type: of Gaussian emissions.   pseudo: pseudo-counts of transitions.   Others: `AbstractEMModel`.
    Attributes: startprob_, transmat_, means_ (and covars_ of Gaussian emissions).   fit_, verdict_, reasons_, n_iter_,
        converged_, lower_bound_.
    """

    n_components: int
    emission: str | AbstractComponents
    covariance_type: str
    pseudo: float

    def __init__(
        self, n_components: int = 1, *, emission: str | AbstractComponents = "gaussian", covariance_type: str = "full",
        pseudo: float = 0.0, n_init: int = 4, max_iter: int = 1000, tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        emission = Gaussians(self.covariance_type) if self.emission == "gaussian" else self.emission
        return MarkovModel(self.n_components, emission, pseudo=self.pseudo)

    def _publish(self, params: Any) -> None:
        model: Any = self.fit_.model
        self.startprob_, self.transmat_ = params.initial, params.transitions
        self.means_ = np.asarray(model.components.mean(params.components))
        if isinstance(model.components, Gaussians):
            self.covars_ = dense(params.components.covariances, self.n_components)

    def predict(self, X: Any, lengths: Any = None) -> Int[np.ndarray, " n"]:
        """The most probable path of states (Viterbi)."""
        rows = self._rows(X)
        found: Any = self._found
        paths = found._apply(type(found.model).viterbi, self._sequences(rows, lengths))
        return np.concatenate([p[:n] for p, n in zip(paths, _ends(rows, lengths), strict=True)])


class FactorialHMM(AbstractSequenceModel):
    """Factorial hidden Markov model: several chains whose contributions add up, x_t ~ N(sum_m means[m, s_t^m], C).

    Arguments:  n_chains, n_components: chains, and states of each.   inference: "exact" or "structured" (variational).
    Attributes: startprob_ (M, K), transmat_ (M, K, K), means_ (M, K, d), covariance_ (d, d).
    """

    n_chains: int
    n_components: int
    inference: str
    counts = ("n_chains", "n_components")
    missing = False  # the chains are coupled by what is observed

    def __init__(
        self, n_chains: int = 2, n_components: int = 2, *, inference: str = "exact", n_init: int = 4,
        max_iter: int = 1000, tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        return FactorialModel(self.n_chains, self.n_components, self.inference)

    def _publish(self, params: Any) -> None:
        self.startprob_, self.transmat_, self.means_ = params.initial, params.transitions, params.means
        self.covariance_ = params.covariance

    def predict(self, X: Any, lengths: Any = None) -> Int[np.ndarray, "n M"]:
        """The most probable state of each chain at each step."""
        return self.predict_proba(X, lengths).argmax(-1)


def _ends(rows: np.ndarray, lengths: Any) -> list[int]:
    if lengths is None:
        return [len(rows)]
    ends = [int(n) for n in np.asarray(lengths).ravel()]
    if sum(ends) != len(rows) or min(ends, default=0) < 1:
        wrong = f"they add up to {sum(ends)}, and there are {len(rows)} rows"
        raise DataError(explain(f"lengths={ends[:6]}", wrong, "each row is a step of one sequence", "lengths of all"))
    return ends
