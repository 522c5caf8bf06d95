"""Mixtures with the scikit-learn API."""

from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from ..models.em import AbstractEM
from ..models.gaussian_components import ConjugatePrior, GaussianParams, dense
from ..models.mixtures import BernoulliMixture as BernoulliModel
from ..models.mixtures import GaussianMixture as GaussianModel
from ..models.mixtures import MixtureOfPPCA as PPCAModel
from ..models.mixtures import MixtureParams
from .em import AbstractEMModel, bare_fit


class AbstractMixtureModel(AbstractEMModel):
    """A mixture: rows belong to components."""

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n K"]:
        """Responsibilities p(component | x)."""
        return self._found.posterior(self._rows(X))

    def predict(self, X: Any) -> Int[np.ndarray, " n"]:
        """The most probable component of each row."""
        return self.predict_proba(X).argmax(1)

    def fit_predict(self, X: Any, y: Any = None) -> Int[np.ndarray, " n"]:
        """The most probable component of each of the rows fitted."""
        return self.fit(X, y).predict(X)

    def sample(self, n_samples: int = 1) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
        """(rows, their components) drawn from the mixture; the same ones at each call if `random_state` is a number."""
        return self._drawn(n_samples)


class GaussianMixture(AbstractMixtureModel):
    """Mixture of Gaussians, p(x) = sum_k pi_k N(x; mu_k, Sigma_k), by EM; missing values are integrated out exactly.

    Arguments:
        n_components: K.   covariance_type: "full", "tied", "diag", "spherical".   ridge: added to each variance, as a
            share of its column's.   prior: None, or a `jensen.models.ConjugatePrior` (posterior mode).
        n_init, max_iter, tol, batch_size, random_state: as of `AbstractEMModel`.
    Attributes: weights_, means_, covariances_, precisions_, precisions_cholesky_: shapes as in scikit-learn.
        fit_, verdict_, reasons_, n_iter_, converged_, lower_bound_.
    Example:    >>> from jensen.zoo import GaussianMixture                  # doctest: +SKIP
                >>> GaussianMixture(3).fit(X).predict_proba(X_test)         # doctest: +SKIP
    """

    n_components: int
    covariance_type: str
    ridge: float
    prior: ConjugatePrior | None

    def __init__(
        self, n_components: int = 1, *, covariance_type: str = "full", ridge: float = 1e-6,
        prior: ConjugatePrior | None = None, n_init: int | None = None, max_iter: int = 1000, tol: float = 1e-6,
        batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        return GaussianModel(self.n_components, self.covariance_type, ridge=self.ridge, prior=self.prior)

    def _publish(self, params: Any) -> None:
        inner = params.components
        self.weights_, self.means_ = params.weights, inner.means
        full = dense(inner.covariances, len(inner.means))
        triangular = lambda a: np.linalg.inv(np.linalg.cholesky(a)).swapaxes(-1, -2)
        kind = self.covariance_type
        if kind in ("full", "tied"):
            chosen = full if kind == "full" else full[0]
            self.covariances_, self.precisions_cholesky_ = chosen, triangular(chosen)
            self.precisions_ = self.precisions_cholesky_ @ self.precisions_cholesky_.swapaxes(-1, -2)
        else:
            self.covariances_ = inner.covariances if kind == "diag" else inner.covariances[:, 0]
            self.precisions_, self.precisions_cholesky_ = 1 / self.covariances_, 1 / np.sqrt(self.covariances_)

    def to_sklearn(self) -> Any:
        """The same fitted mixture as a `sklearn.mixture.GaussianMixture`."""
        from sklearn.mixture import GaussianMixture as Other

        _ = self._found
        out = Other(self.n_components, covariance_type=self.covariance_type, tol=self.tol, max_iter=self.max_iter)
        names = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "converged_", "n_iter_",
                 "lower_bound_", "n_features_in_")  # fmt: skip
        for name in names:
            setattr(out, name, getattr(self, name))
        return out

    @classmethod
    def from_sklearn(cls, fitted: Any) -> Self:
        """A fitted `sklearn.mixture.GaussianMixture` (or its Bayesian sibling's point estimate) as one of these."""
        kind, (k, d) = fitted.covariance_type, fitted.means_.shape
        made: Any = GaussianParams
        out = cls(k, covariance_type=kind, max_iter=fitted.max_iter)
        shapes = {"full": (k, d, d), "tied": (1, d, d), "diag": (k, d), "spherical": (k, 1)}
        covariances = np.asarray(fitted.covariances_).reshape(shapes[kind])
        covariances = np.broadcast_to(covariances, (k, d)) if kind == "spherical" else covariances
        full, center = dense(covariances, k), fitted.weights_ @ fitted.means_
        variance = fitted.weights_ @ (np.diagonal(full, axis1=1, axis2=2) + (fitted.means_ - center) ** 2)
        params = MixtureParams(fitted.weights_, made(fitted.means_, covariances, np.zeros(k), center, variance))
        out.n_features_in_ = d
        return out._take(bare_fit(out._model(), params))


class BernoulliMixture(AbstractMixtureModel):
    """Mixture of independent bits (latent class analysis), p(x) = sum_k pi_k prod_j p_kj^x_j (1 - p_kj)^(1 - x_j), by EM.

    Arguments:  n_components: K.   pseudo: pseudo-counts of a 1 and of a 0 in each cell.   Others: `AbstractEMModel`.
    Attributes: weights_, means_ (K, d): the probabilities.   fit_, verdict_, reasons_, n_iter_, converged_, lower_bound_.
    Raises:     DataError for values outside [0, 1]; NaN is a missing bit.
    """

    n_components: int
    pseudo: float

    def __init__(
        self, n_components: int = 1, *, pseudo: float = 0.0, n_init: int | None = None, max_iter: int = 1000,
        tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        return BernoulliModel(self.n_components, pseudo=self.pseudo)

    def _publish(self, params: Any) -> None:
        self.weights_, self.means_ = params.weights, params.components


class MixtureOfPPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AbstractMixtureModel):
    """Mixture of probabilistic principal component analysers: Sigma_k = W_k W_k' + sigma_k^2 I, by EM.

    Arguments:  n_components: K.   n_latents: columns of each W_k.   ridge: as of `GaussianMixture`.
    Attributes: weights_, means_, covariances_ (K, d, d), components_ (K, n_latents, d): the W_k', noise_variance_ (K,).
    """

    n_components: int
    n_latents: int
    ridge: float
    counts: ClassVar[tuple[str, ...]] = ("n_components", "n_latents")
    least_features: ClassVar[int] = 2

    def __init__(
        self, n_components: int = 1, n_latents: int = 1, *, ridge: float = 1e-6, n_init: int | None = None,
        max_iter: int = 1000, tol: float = 1e-6, batch_size: int | None = None,
        random_state: int | np.random.RandomState | None = None, progress: bool | None = None,
    ):  # fmt: skip
        self._keep(locals())

    def _model(self) -> AbstractEM:
        return PPCAModel(self.n_components, self.n_latents, ridge=self.ridge)

    def _publish(self, params: Any) -> None:
        inner, q = params.components, self.n_latents
        self._n_features_out = q
        self.weights_, self.means_, self.covariances_ = params.weights, inner.means, inner.covariances
        values, vectors = np.linalg.eigh(inner.covariances)
        self.noise_variance_ = values[:, :-q].mean(1)
        scale = np.sqrt(np.maximum(values[:, -q:] - self.noise_variance_[:, None], 0))
        self.components_ = (vectors[:, :, -q:] * scale[:, None]).swapaxes(1, 2)[:, ::-1]

    def transform(self, X: Any) -> Float[np.ndarray, "n n_latents"]:
        """E[z | what is seen of x, k] of each row, in the coordinates of its most probable component k.

        The position is linear in x, so what is missing counts as its mean given the rest and k.
        """
        X, k = self._rows(X), self.predict(X)
        X = self._found._apply(_completed, X)[np.arange(len(X)), k]
        w = self.components_
        m = w @ w.swapaxes(1, 2) + self.noise_variance_[:, None, None] * np.eye(self.n_latents)
        return np.einsum("nij,nj->ni", np.linalg.solve(m, w)[k], X - self.means_[k])


def _completed(model: Any, params: Any, rows: Any) -> Any:
    """E[x | what is seen of it, component], (n, K, d)."""
    return model.components.imputed(params.components, rows).swapaxes(0, 1)
