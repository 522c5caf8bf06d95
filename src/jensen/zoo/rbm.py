"""Restricted Boltzmann machine with the scikit-learn API."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from sklearn.neural_network import BernoulliRBM
from sklearn.utils.validation import check_is_fitted

from ..errors import OptionError, explain
from ..fit.energy import fit_energy
from ..models.boltzmann import RBM as Machine
from .energy import AbstractEnergyModel


class RBM(AbstractEnergyModel):
    """Restricted Boltzmann machine (RBM).

    Definition: p(v, h) = exp(v . b + h . c + v W h) / Z for bits; see `jensen.models.RBM` for real and categorical v.
    Arguments:
        n_components: hidden units.   visible: "bernoulli", "gaussian", "categorical" (with n_categories) or "auto".
        method: "pcd", "cd", "parallel-tempering".   k, n_chains, weight_decay, sparsity, centred, learning_rate, n_iter,
            batch_size, n_temperatures, n_runs, random_state, progress: as `AbstractEnergyModel`.
    Attributes: as `AbstractEnergyModel`.
    Example:    >>> rbm = RBM(256).fit(X)                          # doctest: +SKIP
                >>> rbm.transform(X), rbm.score(X_test), rbm.sample(5)  # doctest: +SKIP
    Reference:  Smolensky (1986); Tieleman (2008) for "pcd"; Salakhutdinov and Murray (2008) for `score_samples`.
    """

    n_components: int
    n_features_in_: int
    counts: ClassVar = ("n_components", *AbstractEnergyModel.counts)

    def __init__(
        self,
        n_components: int = 256,
        *,
        visible: str = "auto",
        n_categories: int | None = None,
        method: str = "pcd",
        k: int = 1,
        n_chains: int | None = None,
        weight_decay: float = 0.0,
        sparsity: tuple[float, float] | None = None,
        centred: bool = False,
        learning_rate: Any = None,
        n_iter: int = 20,
        batch_size: int = 100,
        n_temperatures: int = 14_500,
        n_runs: int = 100,
        random_state: int | np.random.RandomState | None = None,
        progress: bool | None = None,
    ):
        self._keep(locals())

    def _machine(self, rows: np.ndarray) -> Machine:
        kinds: Any = {"n_categories": self.n_categories, "mean": rows.mean(0), "seed": self._seed}
        return Machine(rows.shape[1], int(self.n_components), self.visible_, **kinds)

    def _fit_rows(self, rows):
        return fit_energy(self._machine(rows), rows, n_steps=self._n_steps(len(rows), self.n_iter), **self._learning())

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One pass over these rows, going on from the weights and persistent chains that there are. Scaling and the kind
        of visible units stay those of the first call."""
        self._ignored(X, y)
        if not hasattr(self, "fit_"):
            n_iter, self.n_iter = self.n_iter, 1
            try:
                return self.fit(X)
            finally:
                self.n_iter = n_iter
        self._check_options()
        rows = self._known(X)
        options: Any = self._learning() | {"seed": self._seed + len(self.history_)}
        steps, before = self._n_steps(len(rows), 1), self.history_
        self._take(fit_energy(self.fit_.machine, rows, n_steps=steps, chains=self.fit_.chains, **options))
        self.history_ = np.concatenate([before, self.history_])
        return self

    def to_sklearn(self) -> BernoulliRBM:
        """A fitted `sklearn.neural_network.BernoulliRBM` with the same weights.  Raises: OptionError for real visibles."""
        self._needs_bits()
        made: Any = BernoulliRBM(int(self.n_components), batch_size=self.batch_size, n_iter=self.n_iter)
        made.components_, made.n_features_in_ = self.components_.copy(), self.n_features_in_
        made.intercept_hidden_, made.intercept_visible_ = self.intercept_hidden_.copy(), self.intercept_visible_.copy()
        made.h_samples_ = getattr(self, "h_samples_", np.zeros((self.batch_size, len(self.intercept_hidden_)))).copy()
        made._n_features_out = self._n_features_out
        return made

    @classmethod
    def from_sklearn(cls, fitted: BernoulliRBM, X: Any, **options: Any) -> "RBM":
        """An RBM with the weights and chains of a fitted `BernoulliRBM`.  X: rows, for base rates and the verdict."""
        of: Any = fitted
        # one step of vanishing size makes the fitted object; its weights are then the given ones
        made = cls(
            len(of.components_), visible="bernoulli", n_iter=1, batch_size=len(X), learning_rate=1e-30, **options
        )
        made.fit(X)
        arrays = [(of.components_.T,), (of.intercept_visible_, of.intercept_hidden_)]
        weights, biases = (tuple(jnp.asarray(a, jnp.float32) for a in group) for group in arrays)
        made.fit_.machine = eqx.tree_at(lambda m: (m.weights, m.biases), made.fit_.machine, (weights, biases))
        made.fit_.chains = (np.asarray(of.h_samples_, np.float32),)
        made._take(made.fit_)
        return made

    def _needs_bits(self) -> None:
        check_is_fitted(self, "fit_")
        if self.visible_ != "bernoulli":
            asked, wrong = "`RBM.to_sklearn`", f"the visible units are {self.visible_}"
            raise OptionError(explain(asked, wrong, "scikit-learn has Bernoulli ones only", 'visible="bernoulli"'))
