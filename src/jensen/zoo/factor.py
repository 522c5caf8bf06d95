"""Factor analysis and probabilistic PCA with the scikit-learn API."""

from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array

from ..errors import DataError, OptionError, explain
from ..models.em import AbstractEM
from ..models.factor import FactorAnalysis as FactorModel
from ..models.factor import FactorParams, varimax
from ..models.factor import ProbabilisticPCA as PPCAModel
from .em import AbstractEMModel, bare_fit

ROTATIONS = None, "varimax"


class AbstractFactorModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AbstractEMModel):
    """x = mean + z W + noise."""

    least_features: ClassVar[int] = 2
    noise_variance_: Any

    def _publish(self, params: Any) -> None:
        w = np.asarray(params.components)
        order = np.argsort(-(w**2 / params.noise).sum(1), kind="stable")
        self.mean_, self.components_ = params.mean, w[order]
        self._n_features_out = len(w)

    def transform(self, X: Any) -> Float[np.ndarray, "n k"]:
        """E[z | x] of each row, of what is observed of it."""
        return self._found.posterior(self._rows(X))[0]

    def inverse_transform(self, Z: Any) -> Float[np.ndarray, "n d"]:
        """E[x | z] of each latent."""
        _ = self._found
        Z = np.asarray(check_array(Z, input_name="Z", estimator=self))
        if Z.shape[1] != len(self.components_):
            asked, because = (
                f"`inverse_transform` of shape {Z.shape}",
                f"latents have {len(self.components_)} coordinates",
            )
            raise DataError(explain(asked, "its rows are not latents", because, "model.transform(X)"))
        return self.mean_ + Z @ self.components_

    def get_covariance(self) -> Float[np.ndarray, "d d"]:
        """W' W + noise."""
        _ = self._found
        noise = np.broadcast_to(np.asarray(self.noise_variance_), self.mean_.shape)
        return self.components_.T @ self.components_ + np.diag(noise)

    def sample(self, n_samples: int = 1) -> Float[np.ndarray, "n d"]:
        """Rows drawn from the model; the same ones at each call if `random_state` is a number."""
        return self._drawn(n_samples)[0]

    def _turned(self, components: np.ndarray) -> None:
        """These components, in the attributes and in what transforms rows."""
        self.components_ = components
        self.fit_.params = self.fit_.params._replace(components=components.astype(self.fit_.params.mean.dtype))


class FactorAnalysis(AbstractFactorModel):
    """Factor analysis: x ~ N(mean, W' W + diag(noise_variance)), by EM on the covariance; missing values allowed.

    Arguments:  n_components: factors, fewer than columns.   rotation: None or "varimax".   Others: `AbstractEMModel`.
    Attributes: components_ (k, d), noise_variance_ (d,), mean_, n_iter_, converged_, fit_, verdict_, reasons_,
        loglike_: the objective at each iteration, nats.
    Notes:      A column that the factors explain exactly (Heywood case) is reported in `reasons_`.
    """

    n_components: int
    rotation: str | None

    def __init__(
        self, n_components: int = 2, *, rotation: str | None = None, n_init: int | None = None, max_iter: int = 1000,
        tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        if self.rotation not in ROTATIONS:
            because, instead = "it is looked up by name", f"one of {ROTATIONS}"
            raise OptionError(explain(f"rotation={self.rotation!r}", "there is no such rotation", because, instead))
        return FactorModel(self.n_components)

    def _publish(self, params: Any) -> None:
        AbstractFactorModel._publish(self, params)
        self.noise_variance_, self.loglike_ = params.noise, self.fit_.history
        self._turned(varimax(self.components_)[0] if self.rotation == "varimax" else self.components_)

    def to_sklearn(self) -> Any:
        """The same as a fitted `sklearn.decomposition.FactorAnalysis`."""
        from sklearn.decomposition import FactorAnalysis as Other

        _ = self._found
        out: Any = Other(self.n_components, rotation=self.rotation)
        for name in ("components_", "noise_variance_", "mean_", "n_iter_", "n_features_in_"):
            setattr(out, name, getattr(self, name))
        out.loglike_ = list(self.loglike_)
        return out

    @classmethod
    def from_sklearn(cls, fitted: Any) -> Self:
        """A fitted `sklearn.decomposition.FactorAnalysis` as one of these."""
        out = cls(len(fitted.components_))
        out.n_features_in_ = len(fitted.mean_)
        return out._take(bare_fit(out._model(), _params(fitted.mean_, fitted.components_, fitted.noise_variance_)))


class ProbabilisticPCA(AbstractFactorModel):
    """Probabilistic PCA: x ~ N(mean, W' W + noise_variance I); in closed form, or by EM where values are missing.

    Arguments:  n_components: latents, fewer than columns.   closed_form: False: EM from random W.
    Attributes: components_ (k, d): W, rows orthogonal, of length sqrt(lambda_i - noise_variance) (scikit-learn's PCA
        has length 1), noise_variance_, mean_, n_iter_, converged_, fit_, verdict_, reasons_.
    Notes:      Maximum likelihood: variances are divided by n, scikit-learn's by n - 1.
    """

    n_components: int
    closed_form: bool

    def __init__(
        self, n_components: int = 2, *, closed_form: bool = True, n_init: int | None = None, max_iter: int = 1000,
        tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        return PPCAModel(self.n_components, closed_form=self.closed_form)

    def _publish(self, params: Any) -> None:
        AbstractFactorModel._publish(self, params)
        self.noise_variance_ = float(params.noise[0])
        _, length, axes = np.linalg.svd(self.components_, full_matrices=False)  # EM finds W up to a rotation
        signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
        self._turned(axes * (length * signs)[:, None])

    def to_sklearn(self) -> Any:
        """A fitted `sklearn.decomposition.PCA` with the same axes and density."""
        from sklearn.decomposition import PCA

        _ = self._found
        out: Any = PCA(self.n_components)
        n = self.fit_.n_rows
        length = np.linalg.norm(self.components_, axis=1)
        out.components_, out.mean_ = self.components_ / length[:, None], self.mean_
        out.explained_variance_, out.noise_variance_ = length**2 + self.noise_variance_, self.noise_variance_
        total = out.explained_variance_.sum() + self.noise_variance_ * (len(self.mean_) - len(length))
        out.explained_variance_ratio_ = out.explained_variance_ / total
        out.singular_values_ = np.sqrt(out.explained_variance_ * max(n - 1, 1))
        out.n_components_, out.n_samples_, out.n_features_in_ = len(length), int(n), self.n_features_in_
        return out

    @classmethod
    def from_sklearn(cls, fitted: Any) -> Self:
        """A fitted `sklearn.decomposition.PCA` as one of these: the same density."""
        out = cls(len(fitted.components_))
        out.n_features_in_ = len(fitted.mean_)
        length = np.sqrt(np.maximum(fitted.explained_variance_ - fitted.noise_variance_, 0))
        noise = np.full(len(fitted.mean_), fitted.noise_variance_)
        return out._take(bare_fit(out._model(), _params(fitted.mean_, fitted.components_ * length[:, None], noise)))


def _params(mean: Any, components: Any, noise: Any) -> FactorParams:
    w = np.asarray(components, np.float64)
    variance = (w**2).sum(0) + noise
    made: Any = FactorParams
    return made(np.asarray(mean, np.float64), w, np.asarray(noise, np.float64), variance, np.eye(len(w) + 1))
