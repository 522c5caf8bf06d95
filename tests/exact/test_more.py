"""`fit.more`: every kind of fit goes on where it stopped, and stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen import families

ROWS = np.random.default_rng(0).normal(size=(200, 2))
BITS = (ROWS > 0).astype(np.float32)
MEAN = jnp.array([1.0, -2.0, 5.0])


def density():
    return jn.models.LogDensity(lambda z: -0.5 * jnp.sum((z - MEAN) ** 2), 3)


def per_row(z, x):
    return -0.5 * ((x - z) ** 2).sum()


def of_rows():
    return jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), 2, log_likelihood=per_row)


def decoder():
    return jn.models.LatentVariable.mlp(jax.random.key(0), 1, (2,), hidden=(3,))


BY_GRADIENTS = {
    "mean field": lambda: jn.fit(density(), family="mean-field", n_steps=30, optimizer=0.05),
    "step size by trial": lambda: jn.fit(density(), family="full-rank", n_steps=30),
    "flow": lambda: jn.fit(density(), family=families.RealNVP(), n_steps=30, optimizer=1e-2),
    "without a density": lambda: jn.fit(density(), family=families.Implicit(), n_steps=30),
    "amortised": lambda: jn.fit(decoder(), BITS, n_steps=30),
    "a q for each row": lambda: jn.fit(decoder(), BITS[:20], family=families.Table(families.MeanField()), n_steps=30),
    "minibatches": lambda: jn.fit(of_rows(), ROWS, batch_size=20, n_steps=30, optimizer=0.01),
    "wake-sleep": lambda: jn.fit(decoder(), BITS, method="wake-sleep", n_steps=30),
    "vcd": lambda: jn.fit(decoder(), BITS, method="vcd", n_steps=30),
    "variational em": lambda: jn.fit(decoder(), BITS, method="variational-em", n_steps=30),
}
BY_ITERATIONS = {
    "mixture": lambda: jn.em(jn.models.GaussianMixture(3), ROWS, n_iter=3),
    "stochastic": lambda: jn.em(jn.models.GaussianMixture(2), ROWS, batch_size=20, n_epochs=2),
    "markov": lambda: jn.em(jn.models.HiddenMarkov(2), ROWS.reshape(4, 50, 2), n_iter=3),
    "machine": lambda: jn.fit(jn.models.RBM(2, 3), BITS, n_steps=30),
    "without chains": lambda: jn.fit(jn.models.RBM(2, 3), BITS, n_steps=30, method="cd"),
}


def test_further_steps_begin_where_the_first_ended():
    """One step away from the fitted q, not from other starting values."""
    for name in ("mean field", "amortised", "a q for each row", "vcd"):
        fit = BY_GRADIENTS[name]()
        more = fit.more("evaluations:1")
        start, end = (getattr(f.family, "start", f.family) for f in (fit, more))
        for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True):
            if jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating):
                np.testing.assert_allclose(a, b, atol=0.5)


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_gradients_go_on(name):
    fit = BY_GRADIENTS[name]()
    before = jax.tree.map(np.array, fit.sample(3, seed=1)), fit.history.copy(), len(fit.trail)
    more = fit.more("evaluations:60")
    again = more.more("evaluations:20")
    assert len(fit.history) < len(more.history) < len(again.history)
    np.testing.assert_array_equal(more.history[: len(fit.history)], fit.history)
    assert len(more.trail) >= len(fit.trail) + 1
    assert len(again.trail) >= len(more.trail) + 1
    assert again.seconds > more.seconds > fit.seconds
    for a, b in zip(jax.tree.leaves(before[0]), jax.tree.leaves(fit.sample(3, seed=1)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(before[1], fit.history)
    assert before[2] == len(fit.trail)


def test_gradients_get_there():
    """A bound that a short fit was far from; and what does not go on is the control."""
    fit = BY_GRADIENTS["mean field"]()
    exact = 1.5 * np.log(2 * np.pi)
    assert fit.elbo < exact - 5
    assert fit.more("evaluations:2000").elbo == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("name", BY_ITERATIONS)
def test_iterations_go_on(name):
    fit = BY_ITERATIONS[name]()
    history, verdict = fit.history.copy(), fit.verdict
    more = fit.more("evaluations:40")
    again = more.more("evaluations:5")
    assert len(fit.history) < len(more.history) < len(again.history)
    np.testing.assert_array_equal(more.history[: len(history)], history)
    np.testing.assert_array_equal(fit.history, history)
    assert fit.verdict is verdict
    assert again.seconds > more.seconds > fit.seconds
    assert len(more.checks)


def test_em_goes_on_to_the_same_optimum():
    """Three iterations and the rest are as many at once: the same parameters, and what the starts said stands."""
    short, whole = (jn.em(jn.models.GaussianMixture(3), ROWS, n_iter=n, n_starts=4, tol=0.0) for n in (30, 60))
    more = short.more("evaluations:30")
    assert more.n_iter == whole.n_iter == 60
    assert more.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-6) or more.objective >= short.objective
    assert set(more.checks.code) >= {"initialisation", "monotone"}
    assert (np.diff(more.history) > -1e-8 * np.abs(more.history[1:])).all()


@pytest.mark.parametrize("made", [BY_GRADIENTS["mean field"], *BY_ITERATIONS.values()])
def test_a_fit_from_a_file_does_not(made, tmp_path):
    loaded = jn.load(made().save(tmp_path / "fit"))
    with pytest.raises(jn.OptionError, match="nothing to go on from"):
        loaded.more("seconds:1")
