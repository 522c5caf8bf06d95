"""Hidden Markov models with the scikit-learn API: rows are steps, and `lengths` says where sequences end."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from ..errors import DataError, check_count, explain
from ..fit.em_rows import stacked
from ..models.components import AbstractComponents
from ..models.em import AbstractEM
from ..models.factorial import FactorialHMM as FactorialModel
from ..models.gaussian_components import Gaussians, dense
from ..models.markov import HiddenMarkov as MarkovModel
from .em import AbstractEMModel


class AbstractSequenceModel(AbstractEMModel):
    """X holds all steps of all sequences, one after another; `lengths` says how many each has (None: one sequence).

    `lengths` may stand in the second place, as in hmmlearn, or be given by name. scikit-learn has `y` in that place of
    `fit` and `score`: one value for each row, which is ignored. What is neither is refused.
    """

    def fit(self, X: Any, y: Any = None, lengths: Any = None) -> Self:
        """Fits the sequences: `fit(X, lengths)`. Raises DataError, OptionError."""
        self._check_counts()
        lengths = self._meant(X, y, lengths)
        return self._fitted(self._sequences(self._rows(X, reset=True), lengths))

    def predict_proba(self, X: Any, lengths: Any = None) -> np.ndarray:
        """P(state | the whole sequence) of each step."""
        return self._stepwise(type(self._found.model).posterior, X, lengths)

    def impute(self, X: Any, lengths: Any = None) -> Float[np.ndarray, "n d"]:
        """X with E[x_t | all that is observed of the sequence] where it is NaN (of categories the most probable)."""
        return self._stepwise(type(self._found.model).imputed, X, lengths)  # type: ignore[attr-defined]

    def score_samples(self, X: Any, lengths: Any = None) -> Float[np.ndarray, " n_sequences"]:
        """log p of each sequence, nats."""
        return self._found.log_prob(self._sequences(self._rows(X), lengths))

    def score(self, X: Any, y: Any = None, lengths: Any = None) -> float:
        """log p of all sequences, nats a step: `score(X, lengths)`."""
        lengths = self._meant(X, y, lengths)
        return float(self.score_samples(X, lengths).sum(dtype=np.float64)) / len(X)

    def bic(self, X: Any, lengths: Any = None) -> float:
        """-2 log p + p log(number of steps); smaller is better."""
        n = len(X)
        return -2 * n * self.score(X, lengths=lengths) + self._found.n_parameters * float(np.log(n))

    def aic(self, X: Any, lengths: Any = None) -> float:
        """-2 log p + 2 p; smaller is better."""
        return -2 * len(X) * self.score(X, lengths=lengths) + 2 * self._found.n_parameters

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> tuple[Float[np.ndarray, "n d"], np.ndarray]:
        """(steps, states) of one sequence; the same at each call if `random_state`, here or of the model, is a number."""
        check_count("n_samples", n_samples, f"{self._name}.sample")
        seed = self._drawn_seed() if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        return self._found.sample(n_samples, seed)

    def _stepwise(self, method: Any, X: Any, lengths: Any) -> np.ndarray:
        """What the method of the model gives for each step, without padding."""
        rows = self._rows(X)
        ends = _ends(rows, lengths)
        found = self._found._apply(method, self._sequences(rows, lengths), np.asarray(ends))
        return np.concatenate([a[:n] for a, n in zip(found, ends, strict=True)])

    def _sequences(self, rows: np.ndarray, lengths: Any) -> np.ndarray:
        ends = _ends(rows, lengths)
        if len(ends) == 1:
            return rows[None]
        return stacked(np.split(rows, np.cumsum(ends)[:-1])).astype(rows.dtype)

    def _meant(self, X: Any, second: Any, lengths: Any) -> Any:
        """`lengths`, given by name or in the second place.

        Raises: DataError if the second argument is neither lengths nor a target, or could be both.
        """
        if second is None:
            return lengths
        n, values = _num_samples(X), np.asarray(second)
        whole = values.ndim == 1 and values.dtype.kind in "iu" and values.size > 0 and bool((values > 0).all())
        adds_up, a_row = whole and int(values.sum()) == n, values.ndim > 0 and len(values) == n
        asked = f"`{self._name}` on {n} rows with a second argument"
        if lengths is None and adds_up and a_row:
            wrong, because = (
                "it may be `lengths` or a target `y`",
                "sequences of one step each have as many lengths as rows",
            )
            raise DataError(explain(asked, wrong, because, "lengths=..., or y=None"))
        if lengths is None and adds_up:
            return second
        if a_row:  # a target
            return lengths
        wrong = f"it is {values.tolist() if values.size < 7 else f'of shape {values.shape}'}: no lengths, and no target"
        because = f"lengths are whole numbers that add up to {n}, and a target has one value a row"
        raise DataError(explain(asked, wrong, because, "lengths=[...], how many rows each sequence has"))


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
        pseudo: float = 0.0, n_init: int | None = None, max_iter: int = 1000, tol: float = 1e-6,
        batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
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
        return self._stepwise(type(self._found.model).viterbi, X, lengths)  # type: ignore[attr-defined]


class FactorialHMM(AbstractSequenceModel):
    """Factorial hidden Markov model: several chains whose contributions add up, x_t ~ N(sum_m means[m, s_t^m], C).

    Arguments:  n_chains, n_components: chains, and states of each.   inference: "exact" or "structured" (variational).
    Attributes: startprob_ (M, K), transmat_ (M, K, K), means_ (M, K, d), covariance_ (d, d).
    """

    n_chains: int
    n_components: int
    inference: str
    counts = ("n_chains", "n_components")

    def __init__(
        self, n_chains: int = 2, n_components: int = 2, *, inference: str = "exact", n_init: int | None = None,
        max_iter: int = 1000, tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
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
    given = np.asarray(lengths)
    counts = given.dtype.kind in "iu" or (given.dtype.kind == "f" and bool((given == np.floor(given)).all()))
    if given.ndim > 1 or not counts or given.sum() != len(rows) or given.min(initial=1) < 1:
        total = f"they add up to {given.sum():g}" if counts else "they are no whole numbers"
        wrong = f"{total}, and there are {len(rows)} rows"
        asked = f"lengths={given.ravel()[:6].tolist()}"
        raise DataError(explain(asked, wrong, "each row is a step of one sequence", "lengths of all, each 1 or more"))
    return [int(n) for n in given.ravel()]
