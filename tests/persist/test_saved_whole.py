"""Boltzmann machines, belief networks and models fitted by EM, saved whole: what comes back computes the same bits."""

from typing import NamedTuple

import numpy as np
import pytest

import jensen as jn
from jensen import models
from jensen.errors import CheckpointError, OptionError
from jensen.fit.belief import fit_belief

RNG = np.random.default_rng(0)
BITS = (RNG.random((120, 6)) < 0.4).astype(np.float32)
REAL = RNG.normal(size=(120, 3)) + np.repeat([[3.0, 0, 0], [-3.0, 0, 0]], 60, 0)
PATHS = RNG.normal(size=(8, 10, 2))

MACHINES = {
    "RBM": lambda: jn.fit(models.RBM(6, 3), BITS, n_steps=30),
    "RBM, real": lambda: jn.fit(models.RBM(3, 2, "gaussian"), REAL.astype(np.float32), n_steps=30, method="cd"),
    "DBM": lambda: jn.fit(models.DBM((6, 4, 3), recognition=True), BITS, n_steps=30),
    "DBN": lambda: fit_belief(BITS, (4, 3), n_steps=30),
}
BY_EM = {
    "Gaussian mixture": (lambda: models.GaussianMixture(2), REAL),
    "tied, float32": (lambda: models.GaussianMixture(2, "tied"), REAL.astype(np.float32)),
    "with a prior": (lambda: models.GaussianMixture(2, prior=models.ConjugatePrior()), REAL),
    "Bernoulli mixture": (lambda: models.BernoulliMixture(2), BITS),
    "factor analysis": (lambda: models.FactorAnalysis(1), REAL),
    "hidden Markov": (lambda: models.HiddenMarkov(2), PATHS),
    "factorial HMM": (lambda: models.FactorialHMM(2, 2), PATHS),
}


def same(fit, again):
    assert type(again) is type(fit)
    assert (str(again.verdict), again.reasons) == (str(fit.verdict), fit.reasons)
    assert repr(again) == repr(fit)


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_comes_back(name, tmp_path):
    fit = MACHINES[name]()
    again = jn.load(fit.save(tmp_path / "run"))
    same(fit, again)
    rows = (REAL.astype(np.float32) if "real" in name else BITS)[:7]
    for of in (lambda f: f.score_samples(rows), lambda f: f.sample(5, 1), lambda f: f.gibbs(rows, 2, 1)):
        np.testing.assert_array_equal(of(again), of(fit))
    assert again.rows is None  # a fit does not take the data along


@pytest.mark.parametrize("name", BY_EM)
def test_what_em_fitted_comes_back(name, tmp_path):
    make, data = BY_EM[name]
    fit = jn.em(make(), data, n_iter=20)
    again = jn.load(fit.save(tmp_path / "run"))
    same(fit, again)
    assert again.numbers().keys() == fit.numbers().keys()
    assert (again.bic, again.why) == (fit.bic, fit.why)
    for of in (lambda f: f.log_prob(data), lambda f: f.sample(5)[0]):
        np.testing.assert_array_equal(of(again), of(fit))


def test_what_a_verdict_cost_is_kept(tmp_path):
    fit = MACHINES["RBM"]()
    fit.score_samples(BITS)
    again = jn.load(fit.save(tmp_path / "run"))
    assert {"diagnosis", "_default_partition"} <= vars(again).keys()
    assert vars(again)["_default_partition"] == vars(fit)["_default_partition"]


def test_nothing_may_be_supplied_that_is_not_missing(tmp_path):
    folder = jn.em(models.GaussianMixture(2), REAL, n_iter=5).save(tmp_path / "run")
    with pytest.raises(OptionError, match="saved whole"):
        jn.load(folder, model=models.GaussianMixture(2))


class Mine(NamedTuple):
    a: float


def test_parts_of_others_are_refused_and_nothing_is_written(tmp_path):
    fit = jn.em(models.GaussianMixture(2), REAL, n_iter=5)
    fit.params = Mine(1.0)
    with pytest.raises(CheckpointError, match=r"parts of other packages.*Mine"):
        fit.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_version_is_told(tmp_path):
    from jensen.fit import persist

    fit = jn.em(models.GaussianMixture(2), REAL, n_iter=5)
    folder = fit.save(tmp_path / "run")
    meta = persist.read_meta(folder)
    meta["whole"]["fields"]["invented"] = 1
    meta["digest"] = persist._digest(meta)
    (folder / "fit.json").write_text(persist.json.dumps(meta))
    with pytest.raises(CheckpointError, match="now has the fields"):
        jn.load(folder)
