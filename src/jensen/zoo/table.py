"""What all models with the scikit-learn API share: options as they were given, rows of a table in, rows out."""

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples, check_array, validate_data

from ..arrays import cast, host, is_table
from ..data.binarized import DynamicallyBinarized
from ..errors import DataError, OptionError, explain
from ..process import computes


class AbstractTableModel(DensityMixin, BaseEstimator):
    """Rows with a density. A concrete class has `fit` and `score_samples`."""

    random_state: int | np.random.RandomState | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        computes(cls)

    def _keep(self, options: dict[str, Any]) -> None:
        """Stores the arguments of `__init__` under their names, unchecked, as scikit-learn wants it."""
        for name in self._get_param_names():
            setattr(self, name, options[name])

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _drawn_seed(self) -> int:
        """The same at each call if `random_state` is a number."""
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _ignored(self, X: Any, y: Any) -> None:
        """Raises: DataError for a second argument that is no target: one value for each row, or None."""
        if y is None:
            return
        values, rows = np.asarray(y), _num_samples(X)
        n = len(values) if values.ndim else 0
        if n != rows:
            asked = f"`{self._name}` on {rows} rows with a second argument"
            wrong = f"it is {'one value' if not n else f'of length {n}'}, and no target `y` of these rows"
            because = "the second place is scikit-learn's `y`, one value a row, which is ignored here"
            raise DataError(explain(asked, wrong, because, "other arguments by their name, or y=None"))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`, nats a row; larger is better."""
        self._ignored(X, y)
        return float(np.mean(self.score_samples(X), dtype=np.float64))  # type: ignore[attr-defined]


class AbstractScaledModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AbstractTableModel):
    """Latents of rows, and rows of latents, of columns that may be standardised on the way in and restored on the way out.

    Attributes: center_, scale_: (X - center_) / scale_ is what is modelled (0 and 1 where columns are left as they are; a
        constant column keeps scale 1).
    """

    modelled_as: ClassVar[type] = np.float64

    def reconstruct(self, X: Any) -> Float[np.ndarray, "n d"]:
        """E[x | z] at z = transform(x): each row to its latents and back, in the units of X."""
        return self.inverse_transform(self.transform(X))  # type: ignore[attr-defined]

    def _rows(self, X: Any, reset: bool = False) -> np.ndarray:
        if getattr(X, "ndim", 2) > 2:
            asked = f"`{self._name}` on an array of shape {X.shape}"
            because = "a row of X is one datum, as everywhere in scikit-learn"
            raise DataError(explain(asked, f"it has {X.ndim} axes, not 2", because, "X.reshape(len(X), -1)"))
        return rows_of(self, X, reset=reset)

    def _for_fit(self, given: Any, rows: np.ndarray, law: str) -> Any:
        """What the loop is given: the rows, or those whose bits are drawn anew."""
        if not isinstance(given, DynamicallyBinarized):
            return rows
        if law != "bernoulli":
            asked = f"fitting `{self._name}` with the {law} law to {given!r}"
            because, instead = "other laws are not of bits", "np.asarray(X), or the bernoulli law"
            raise DataError(explain(asked, "bits are drawn anew", because, instead))
        return given

    def _start_scaling(self, X: np.ndarray, standardise: bool) -> None:
        d = X.shape[1]
        self.center_, self.scale_, self._dtype = np.zeros(d), np.ones(d), X.dtype
        if standardise:
            scaler: Any = StandardScaler().fit(X.astype(np.float64))
            self.center_, self.scale_ = scaler.mean_, scaler.scale_

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        """In float64, before any cast to float32: large offsets would cost the digits that matter."""
        return cast("`X`, as it is modelled,", (X - self.center_) / self.scale_, np.dtype(self.modelled_as))

    def _restored(self, rows: np.ndarray) -> np.ndarray:
        return (rows * self.scale_ + self.center_).astype(self._dtype)

    def _log_jacobian(self) -> float:
        """log p(x) = log p((x - center) / scale) - sum log scale."""
        return float(np.log(self.scale_).sum())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # latents are float32 whatever X is
        return tags


def rows_of(model: BaseEstimator, X: Any, *, missing: bool = False, reset: bool = False, **options: Any) -> np.ndarray:
    """The rows of a table as scikit-learn checks them, in float32 if they are, else in float64; what is masked or missing
    becomes NaN where `missing`, and is refused elsewhere."""
    types: Any = [np.float64, np.float32]
    options |= {"dtype": types, "ensure_all_finite": "allow-nan" if missing else True}
    if (isinstance(X, np.ndarray) and X.dtype.kind in "Oc") or not is_table(X):
        return np.asarray(validate_data(model, X, reset=reset, **options))
    rows = host("X", X, missing=missing, finite=False)
    rows = rows if rows.dtype in types else cast("`X`", rows, np.dtype(np.float64))
    rows = check_array(rows, estimator=model, input_name="X", **options)
    validate_data(model, X, skip_check_array=True, reset=reset)  # the names of its columns
    return np.asarray(rows)


def chosen_law(asked: str, X: np.ndarray) -> str:
    """What was asked for; for "auto" "bernoulli" if X lies in [0, 1], else "gaussian"."""
    if asked != "auto":
        return asked
    return "bernoulli" if X.min() >= 0 and X.max() <= 1 else "gaussian"


def check_choice(model: str, name: str, value: Any, choices: Any) -> None:
    """Raises: OptionError for an option that is none of the choices."""
    if value not in choices:
        asked = f"`{model}({name}={value!r})`"
        raise OptionError(explain(asked, "it is unknown", "the name is looked up", f"one of {choices}"))
