"""How EM and the training of a machine end: by Ctrl-C, a budget, a checkpoint; and what they show meanwhile."""

import os
import signal
import time

import numpy as np
import pytest

import jensen as jn
from jensen.errors import CheckpointError
from jensen.fit.belief import fit_belief
from jensen.models import DBM, RBM, BernoulliMixture, GaussianMixture, HiddenMarkov

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2)) + 3 * RNG.integers(0, 2, size=(300, 1))
BITS = (RNG.random((120, 6)) < 0.4).astype(np.float32)
SLOW = {"n_starts": 2, "tol": 0.0, "n_iter": 100_000}


def ctrl_c(*_):
    os.kill(os.getpid(), signal.SIGINT)


def mapped(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r")


WAYS = {
    "in memory": (lambda folder: X, {}),
    "a file": (mapped, {}),
    "stochastic": (lambda folder: X, {"batch_size": 30, "n_epochs": 10**4}),
}


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_ends_em_with_what_there_is(way, tmp_path):
    data, options = WAYS[way]
    before = signal.getsignal(signal.SIGINT)
    fit = jn.em(GaussianMixture(2), data(tmp_path), on_chunk=ctrl_c, **{**SLOW, **options})
    assert fit.why == "interrupted" and fit.verdict != jn.Verdict.RELIABLE and np.isfinite(fit.log_likelihood)
    assert any("interrupted after" in r for r in fit.reasons) and signal.getsignal(signal.SIGINT) is before
    assert np.isclose(fit.log_prob(X).sum(), fit.log_likelihood)  # these parameters were evaluated
    assert jn.load(fit.save(tmp_path / "run")).why == "interrupted"


@pytest.mark.parametrize(("model", "data"), [(GaussianMixture(3), X), (BernoulliMixture(2), BITS)])
def test_a_spent_budget_is_called_so(model, data):
    fit = jn.em(model, data, budget="evaluations:5", **SLOW)
    assert (fit.why, fit.n_iter) == ("budget", 5) and any("budget of 5 evaluations" in r for r in fit.reasons)
    assert not any("interrupted" in r for r in fit.reasons)


def test_a_budget_of_seconds_holds():
    x = RNG.normal(size=(20_000, 6))
    jn.em(GaussianMixture(12), x, budget="evaluations:1", **SLOW)  # compiled
    began = time.perf_counter()
    fit = jn.em(GaussianMixture(12), x, budget="seconds:2", **SLOW)
    took = time.perf_counter() - began
    assert fit.why == "budget" and took < 3 + 2 * took / fit.n_iter


@pytest.mark.parametrize("way", WAYS)
def test_em_goes_on_from_its_checkpoint_and_refuses_that_of_others(way, tmp_path):
    data, options = WAYS[way]
    data, at = data(tmp_path), tmp_path / "checkpoint"
    options = {"n_starts": 2, "tol": 1e-13, "n_iter": 30} | (
        {"batch_size": 30, "n_epochs": 4} if "batch_size" in options else {}
    )
    whole = jn.em(GaussianMixture(2), data, **options)
    part = jn.em(GaussianMixture(2), data, budget="evaluations:2", checkpoint=at, **options)
    assert part.why == "budget" and part.n_iter == 2
    again = jn.em(GaussianMixture(2), data, checkpoint=at, **options)
    assert again.n_iter == whole.n_iter and again.reasons == whole.reasons
    np.testing.assert_array_equal(again.history, whole.history)
    np.testing.assert_array_equal(again.params.components.means, whole.params.components.means)
    other = X.copy()
    other[7, 1] += 1e-9
    for model, rows, more in (
        (GaussianMixture(2), other, {}),
        (GaussianMixture(2, "diag"), X, {}),
        (GaussianMixture(2), X, {"seed": 1}),
    ):
        with pytest.raises(CheckpointError, match="another model, data"):
            jn.em(model, rows, checkpoint=at, **options, **more)


def test_a_checkpoint_that_cannot_be_written_warns_and_the_fit_goes_on(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="There is no checkpoint"):
        fit = jn.em(GaussianMixture(2), X, checkpoint=tmp_path / "file" / "folder")
    assert fit.converged


def test_the_bar_of_em_is_shown_where_wanted(capsys):
    jn.em(GaussianMixture(2), X, n_iter=20, progress=True)
    assert "EM of Mixture" in capsys.readouterr().err
    jn.em(GaussianMixture(2), X, n_iter=20)
    assert capsys.readouterr().err == ""


def test_fit_passes_them_on(tmp_path):
    fit = jn.fit(HiddenMarkov(2), X[None], budget="evaluations:3", checkpoint=tmp_path, progress=False)
    assert fit.why == "budget" and list(tmp_path.iterdir())


# ---- machines -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [lambda: RBM(6, 3), lambda: DBM((6, 4, 3))], ids=["RBM", "DBM"])
def test_a_machine_ends_by_ctrl_c_or_budget_and_goes_on(make, tmp_path):
    machine = make()
    whole = jn.fit(machine, BITS, n_steps=60)
    fit = jn.fit(machine, BITS, n_steps=10**7, on_chunk=ctrl_c)
    assert fit.why == "interrupted" and any("interrupted" in r for r in fit.reasons)
    part = jn.fit(machine, BITS, n_steps=60, budget="evaluations:1", checkpoint=tmp_path)
    assert part.why == "budget" and len(part.history) < 60
    assert any("budget" in r for r in part.reasons) and not any("interrupted" in r for r in part.reasons)
    again = jn.fit(machine, BITS, n_steps=60, checkpoint=tmp_path)
    np.testing.assert_array_equal(again.history, whole.history)
    np.testing.assert_array_equal(again.machine.weights[0], whole.machine.weights[0])
    with pytest.raises(CheckpointError, match="another model, data"):
        jn.fit(machine, 1 - BITS, n_steps=60, checkpoint=tmp_path)


def test_an_interrupted_belief_network_has_the_layers_that_were_trained():
    fit = fit_belief(BITS, (4, 3), n_steps=10**7, on_chunk=ctrl_c)
    assert len(fit.dbn.stack) == 1 and "1 layers above were not begun" in fit.reasons[0]
