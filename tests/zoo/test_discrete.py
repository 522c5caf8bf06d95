"""The models with discrete latents: scikit-learn's checks, quality on digits of one bit a pixel, layers that are dead,
refusals."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bits import digits, independent
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

import jensen as jn
from jensen.diagnostics.activity import Activity, active_units
from jensen.diagnostics.verdict import diagnose_rows
from jensen.families import Bernoulli, Product
from jensen.models import LatentVariable
from jensen.nets import MLP, FromBits, Reads
from jensen.zoo import VAE, DiscreteVAE, HelmholtzMachine, SigmoidBeliefNet

TINY = {"n_steps": 20, "batch_size": None, "n_importance": 8}
SHORT = {"n_steps": 400, "optimizer": 3e-3, "n_importance": 100, "random_state": 0}


@parametrize_with_checks([SigmoidBeliefNet((3, 2), **TINY)])
def test_sklearn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([HelmholtzMachine((3,), hidden=(4,), **TINY), DiscreteVAE(2, hidden=(4,), **TINY)])
def test_sklearn_of_the_others(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def bits():
    return digits()


MODELS = {
    "belief net, one layer": (SigmoidBeliefNet((30,), **SHORT), 30, 2.0),
    "belief net, three layers": (SigmoidBeliefNet((30, 20, 10), hidden=(30,), **SHORT), 60, 2.0),
    "Helmholtz machine": (HelmholtzMachine((30, 20), **SHORT), 50, 1.0),
    "bits": (DiscreteVAE(10, hidden=(50,), **SHORT), 10, 3.0),
    "categories": (DiscreteVAE(5, 4, hidden=(50,), **SHORT), 20, 3.0),
}


FEW = "belief net, three layers", "Helmholtz machine", "categories"


@pytest.fixture(scope="module", params=[n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def fitted(request, bits):
    model, n_features, gain = MODELS[request.param]
    return model.fit(bits[0]), n_features, gain


def test_what_a_short_fit_gives(fitted, bits):
    """Better than independent pixels by so many nats on held-out rows; numbers of the right shapes and ranges."""
    model, n_features, gain = fitted
    test = bits[1]
    assert model.score(test) > independent(*bits) + gain
    assert model.elbo(test) / len(test) < model.score(test)
    p = model.transform(test)
    assert p.shape == (len(test), n_features) == (len(test), len(model.get_feature_names_out()))
    assert p.min() >= 0 and p.max() <= 1
    np.testing.assert_array_equal(model.transform(test[5:7]), p[5:7])
    back, drawn = model.reconstruct(test), model.sample(20)
    assert np.abs(back - test).mean() < np.abs(bits[0].mean(0) - test).mean()
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    np.testing.assert_array_equal(drawn[:5], model.sample(5))
    assert len(model.history_) == model.n_iter_ == 400


def test_the_verdict_counts_active_units(fitted):
    model, *_ = fitted
    said = [r for r in model.fit_.reasons if "units depend" in r]
    names = [f"Layer {n}" for n in model.fit_.model.bottom_up] or ["Latent z"]
    assert [s.partition(":")[0] for s in said] == names
    assert set(model.fit_.diagnosis.details["active_units"]) == set(names)


def test_pickles(fitted, bits):
    model, *_ = fitted
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(bits[1][:3]), model.score_samples(bits[1][:3]))


def test_saved_fits_are_read(bits, tmp_path):
    fit = SigmoidBeliefNet((4, 3), **TINY | {"random_state": 0}).fit(bits[0][:50]).fit_
    fit.save(tmp_path / "run")
    again = jn.load(tmp_path / "run", data=bits[0][:50])
    assert again.reasons == fit.reasons
    np.testing.assert_array_equal(again.sample(5)["h2"], fit.sample(5)["h2"])


def test_probabilities_of_layers_are_those_of_a_mean_field_pass(bits):
    net = SigmoidBeliefNet((4, 3), **TINY | {"random_state": 0}).fit(bits[0][:50])
    p = net.transform(bits[0][:2])
    q = net.fit_.family(jnp.asarray(bits[0][0]))
    states = q.support()
    mass = np.exp(np.asarray(jax.vmap(q.log_prob)(states)))
    np.testing.assert_allclose(p[0, :4], mass @ np.asarray(states["h1"]), atol=1e-5)  # exact
    second = jax.nn.sigmoid(q.next_logits((jnp.asarray(p[0, :4]),)))
    np.testing.assert_allclose(p[0, 4:], second, atol=1e-6)


def test_gaussian_columns_are_standardised():
    rng = np.random.default_rng(0)
    x = 100 + 5 * (rng.random((300, 1)) < 0.5) + 0.1 * rng.normal(size=(300, 4))
    net = SigmoidBeliefNet((3,), **SHORT).fit(x)
    assert net.likelihood_ == "gaussian"
    assert np.abs(net.reconstruct(x) - x).mean() < 0.5


# ---- starting values ------------------------------------------------------------------------------------------------
def test_a_belief_net_starts_at_the_mean_of_the_data(bits):
    x = bits[0]
    model = LatentVariable.belief_net(jax.random.key(0), (5, 4), (64,), mean=x.mean(0))
    assert model.bottom_up == ("h1", "h2")
    assert {n: a.shape for n, a in model.latents.items()} == {"h1": (5,), "h2": (4,)}
    z = {"h1": jnp.full(5, 0.5), "h2": jnp.zeros(4)}  # the decoder reads 2 h - 1 = 0
    np.testing.assert_allclose(model.decode(z), np.clip(x.mean(0), 0.01, 0.99), atol=1e-5)
    one = LatentVariable.belief_net(jax.random.key(0), (5,), (64,))
    assert (one.latents.shape, one.bottom_up) == ((5,), ())
    prior = ravel_pytree(eqx.filter(model.prior, eqx.is_array))[0]
    assert prior.size == 4 + 4 * 5 + 5  # trained: the top's log-odds, and the net down to h1
    with pytest.raises(jn.ModelError, match="no layer"):
        LatentVariable.belief_net(jax.random.key(0), (), (64,))


def test_q_runs_against_the_prior_without_being_asked(bits):
    model = LatentVariable.belief_net(jax.random.key(0), (5, 4), (64,))
    fit = jn.fit(model, bits[0][:60], n_steps=3, optimizer=1e-3)
    assert fit.family.distribution.value.names == ("h1", "h2")


# ---- dead layers ----------------------------------------------------------------------------------------------------
def test_active_units_of_known_laws():
    rng = np.random.default_rng(0)
    shape = (200, 100, 400)
    noise = (rng.random(shape) < 0.3).astype(np.float32)
    assert active_units(noise) == (0, 400)
    p = 0.3 + 0.2 * (np.arange(100) % 2)[:, None] * (np.arange(400) < 7)
    assert active_units((rng.random(shape) < p).astype(np.float32)) == (7, 400)
    faint = 0.3 + 0.02 * (np.arange(100) % 2)[:, None] * np.ones(400)  # 0.05% of the variance
    assert active_units((rng.random(shape) < faint).astype(np.float32)) == (0, 400)
    assert active_units(np.ones(shape)) == (0, 400)
    assert active_units(np.broadcast_to(np.arange(100)[:, None] % 2, shape)) == (400, 400)  # no noise at all
    few = rng.normal(size=(200, 3, 2000))  # few rows make no units active
    assert active_units(few) == (0, 2000)
    one_hot = np.eye(4)[rng.integers(4, size=(200, 100, 5))]
    assert active_units(one_hot, category=True) == (0, 5)
    one_hot[:, :50, 1] = np.eye(4)[0]
    assert active_units(one_hot, category=True) == (1, 5)


@pytest.mark.parametrize("reads", [("h1",), ("h1", "h2")])
def test_a_dead_layer_is_reported(bits, reads):
    """A decoder that ignores the second layer; one that does not is the control."""
    x = bits[0][:400]
    net = MLP(jax.random.key(0), 3 * len(reads), (), 64)
    prior = Product({"h1": Bernoulli(jnp.zeros(3)), "h2": Bernoulli(jnp.zeros(3))})
    model = LatentVariable(prior, Reads(FromBits(net), reads), shape=(64,))
    fit = jn.fit(model, x, n_steps=300, optimizer=2e-2)
    active = fit.diagnosis.details["active_units"]
    assert active["Layer h1"][0] >= 1
    if len(reads) == 2:
        assert active["Layer h2"][0] >= 1
        assert not any("collapse" in r for r in fit.reasons)
        return
    assert active["Layer h2"] == [0, 3]
    (said,) = [r for r in fit.reasons if "h2" in r]
    assert said.startswith("Layer h2: none of its 3 units depends on x")
    assert "posterior collapse" in said and "n_samples" in said
    assert str(fit.verdict) != "RELIABLE"


def test_what_a_dead_layer_does_to_a_verdict():
    """At best DOUBTFUL, and only where the model was learned: a given one may have latents that x says nothing of."""
    log_w = np.random.default_rng(0).normal(size=(200, 100)) * 0.01
    ended = {"why": "converged", "skipped": 0, "n_steps": 10}
    dead, alive = Activity("Layer h2", 0, 5), Activity("Layer h1", 1, 5)
    verdict = lambda **k: diagnose_rows(log_w, 1000, **ended, **k).verdict
    assert verdict(layers=[alive, dead], learned=True) == jn.Verdict.DOUBTFUL
    assert verdict(layers=[alive], learned=True) == jn.Verdict.RELIABLE
    assert verdict(layers=[alive, dead], learned=False) == jn.Verdict.RELIABLE
    assert alive.sentence() == "Layer h1: 1 of 5 units depends on x."
    assert Activity("Latent z", 0, 1).sentence() == "Latent z: its only unit does not depend on x."


def test_continuous_latents_are_counted_too(bits):
    vae = VAE(3, hidden=(20,), **SHORT).fit(bits[0])
    assert "Latent z: 3 of 3 units depend on x." in vae.fit_.reasons


# ---- refusals -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SigmoidBeliefNet(widths=5), "widths"),
        (SigmoidBeliefNet(widths=()), "widths"),
        (SigmoidBeliefNet(widths=(5, 0)), "widths"),
        (SigmoidBeliefNet(hidden="10"), "hidden"),
        (SigmoidBeliefNet(activation="swishy"), "activation"),
        (SigmoidBeliefNet(method="wake"), "there is no such method"),
        (SigmoidBeliefNet(method="wake-sleep", gradient="leave-one-out"), "the two do not meet"),
        (SigmoidBeliefNet(likelihood="bernoulli"), "(?s)SigmoidBeliefNet.*values from 0 to 11"),
        (HelmholtzMachine(method="gradient"), "method"),
        (HelmholtzMachine(likelihood="poisson"), "likelihood"),
        (DiscreteVAE(latent_dim=0), "latent_dim"),
        (DiscreteVAE(n_categories=1), "n_categories"),
        (DiscreteVAE(n_categories=None), "n_categories"),
        (DiscreteVAE(gradient="pathwise"), "differentiable in the parameters"),
    ],
)
def test_refusals(model, message):
    with pytest.raises(jn.JensenError, match=message):
        model.fit(np.arange(12.0).reshape(4, 3))


def test_values_between_zero_and_one_are_noisy_bits(bits):
    x = load_digits().data[:100] / 16
    net = SigmoidBeliefNet((3,), **TINY | {"random_state": 0}).fit(x)
    assert net.likelihood_ == "bernoulli"
    assert np.isfinite(net.score(x))
    with pytest.raises(jn.DataError, match="outside"):
        net.score(16 * x)
