"""Deep Boltzmann machine and deep belief network with the scikit-learn API."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import OptionError, check_count, explain, is_count
from ..fit.belief import fit_belief
from ..fit.energy import fit_energy, pretrained
from ..models.deep_boltzmann import DBM as Machine
from .energy import AbstractEnergyModel


class DBM(AbstractEnergyModel):
    """Deep Boltzmann machine (DBM): layers of binary causes with undirected links, learned together by centred gradients.

    Arguments:
        widths: hidden units of each layer, the one next to the data first.   recognition: a network trained along that
            starts mean-field inference.   pretrain_iter: passes of greedy pre-training of each layer; with
            centred gradients it is not needed (without either, upper units die).
        method, k, n_chains, weight_decay, sparsity, centred, learning_rate, n_iter, batch_size, n_temperatures, n_runs,
            visible, n_categories, random_state, progress: as `AbstractEnergyModel`.
    Attributes: as `AbstractEnergyModel`. `transform` gives the mean-field means of all hidden layers.
    Example:    >>> dbm = DBM((500, 1000)).fit(X)                  # doctest: +SKIP
    Reference:  Salakhutdinov and Hinton (2009); Salakhutdinov and Larochelle (2010); Montavon and Mueller (2012), centring.
    """

    recognition: bool
    pretrain_iter: int

    def __init__(
        self,
        widths: Sequence[int] = (200, 200),
        *,
        recognition: bool = False,
        pretrain_iter: int = 0,
        visible: str = "auto",
        n_categories: int | None = None,
        method: str = "pcd",
        k: int = 1,
        n_chains: int | None = None,
        weight_decay: float = 0.0,
        sparsity: tuple[float, float] | None = None,
        centred: bool = True,
        learning_rate: Any = None,
        n_iter: int = 20,
        batch_size: int = 100,
        n_temperatures: int = 14_500,
        n_runs: int = 100,
        random_state: int | np.random.RandomState | None = None,
        progress: bool | None = None,
    ):
        self._keep(locals())

    def _check_options(self):
        super()._check_options()
        check_count("pretrain_iter", self.pretrain_iter, self._name, least=0)

    def _fit_rows(self, rows):
        widths, learning = checked_widths(self), self._learning()
        options = {"mean": rows.mean(0), "seed": self._seed, "n_categories": self.n_categories}
        machine = Machine((rows.shape[1], *widths), self.visible_, recognition=self.recognition, **options)
        if self.pretrain_iter:
            shared = {name: learning[name] for name in ("batch_size", "seed", "progress", "optimizer")}
            machine = pretrained(machine, rows, n_steps=self._n_steps(len(rows), self.pretrain_iter), **shared)
        return fit_energy(machine, rows, n_steps=self._n_steps(len(rows), self.n_iter), **learning)


class DBN(AbstractEnergyModel):
    """Deep belief network (DBN): RBMs trained greedily, the last one undirected, those below it top-down.

    Arguments:  as `DBM`, and
                n_importance: draws a row in `score_samples`.   n_iter: passes over the data for each layer.
    Attributes: as `AbstractEnergyModel`, of the layer next to the data; `fit_.dbn`: the `jensen.models.DBN`. history_ and
                log_partition() are of the top RBM; `transform` gives the top layer's probabilities.
    Reference:  Hinton, Osindero and Teh (2006); Salakhutdinov and Murray (2008) for `score_samples`.
    """

    n_importance: int
    counts: ClassVar = (*AbstractEnergyModel.counts, "n_importance")

    def __init__(
        self,
        widths: Sequence[int] = (200, 200),
        *,
        n_importance: int = 100,
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

    def _fit_rows(self, rows):
        learning, widths = self._learning(), checked_widths(self)
        options = {"n_categories": self.n_categories, "n_importance": int(self.n_importance)}
        options["n_steps"] = self._n_steps(len(rows), self.n_iter)
        return fit_belief(rows, widths, self.visible_, **options, **learning)


def checked_widths(estimator: Any) -> tuple[int, ...]:
    """Raises: OptionError if they are no sequence of counts."""
    widths = estimator.widths
    if isinstance(widths, str) or not isinstance(widths, Sequence) or not widths or not all(map(is_count, widths)):
        asked, because = f"`{type(estimator).__name__}(widths={widths!r})`", "it lists the widths of the layers"
        raise OptionError(explain(asked, "it is no sequence of positive whole numbers", because, "widths=(500, 1000)"))
    return tuple(map(int, widths))
