"""Wake-sleep and its relatives on a belief net whose 16 latent states and 8 rows are listed: every expected gradient is
a sum. The statistical tests compare means of 20,000 estimates with it; their level is 1e-4 for each family of numbers.
"""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from scipy.stats import chi2, norm

import jensen as jn
from jensen.algorithms.descent import Optimiser
from jensen.algorithms.machine import Machine
from jensen.algorithms.wake_sleep import ReweightedWakeSleep, WakeSleep
from jensen.batch import Batch
from jensen.cell_models import generic
from jensen.models import LatentVariable
from jensen.tree import split_trainable

LEVEL, ESTIMATES, N_BATCH = 1e-4, 20_000, 2
ROWS = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]], np.uint8)
X = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
OPTIMISER = Optimiser(optax.sgd(1.0))
FAST = {"xla_backend_optimization_level": 0}  # compiling is what these tests cost


def machine(mean=None):
    key = jr.key(3)
    model = LatentVariable.belief_net(key, (2, 2), (3,), mean=mean)
    family = jn.families.Amortised(jn.families.Layers(("h1", "h2")), hidden=(3,))
    return generic(Machine(model, family.bind(model.latents, ROWS, key)))


def states(parts):
    return parts.family(jnp.asarray(ROWS[0])).support()


def gradient(fn, parts):
    """Of fn(model, family), raveled."""
    diff, rest = split_trainable(parts)
    value = lambda d: fn(*(lambda p: (p.model, p.family))(eqx.combine(d, rest)))
    return jax.tree.map(np.asarray, jax.jit(jax.grad(value), compiler_options=FAST)(diff))


def tables(model, family, x):
    """(log p(x, z), log q(z | x)) of every state."""
    z = states(Machine(model, family))
    return jax.vmap(lambda z: model.log_density(z, x))(z), jax.vmap(family(x).log_prob)(z)


def over_rows(fn):
    return lambda model, family: sum(fn(*tables(model, family, x)) for x in jnp.asarray(ROWS, float))


stopped = jax.lax.stop_gradient


def log_evidence(log_p, log_q):
    return jax.nn.logsumexp(log_p)


def wake_theta(log_p, log_q):
    return (stopped(jnp.exp(log_q)) * log_p).sum()


def reweighted(log_p, log_q, which):
    """Of two draws: E[w_1 l(z_1) + w_2 l(z_2)], over all pairs."""
    log_w, q = stopped(log_p - log_q), stopped(jnp.exp(log_q))
    w = jax.nn.sigmoid(log_w[:, None] - log_w[None, :])  # of the first of the pair
    l = log_p if which == "theta" else log_q
    return (q[:, None] * q[None, :] * (w * l[:, None] + (1 - w) * l[None, :])).sum()


def sleep_phi(model, family):
    """4 E_p[log q(z | x)]: a dream weighs what a row does."""
    total = 0.0
    for x in jnp.asarray(X):
        log_p, log_q = tables(model, family, x)
        total = total + (stopped(jnp.exp(log_p)) * log_q).sum()
    return len(ROWS) * total


def both_phi(model, family):
    wake = over_rows(functools.partial(reweighted, which="phi"))(model, family)
    return 0.5 * wake + 0.5 * sleep_phi(model, family)


def estimates(algorithm, seed, weighted=True, n=ESTIMATES):
    """(n, parameters) gradients of the ascended sums, and values: each from a minibatch of two of the four rows."""
    rows = jnp.asarray(ROWS)

    def one(key):
        k1, k2 = jr.split(key)
        index = jr.permutation(k1, len(ROWS))[:N_BATCH]
        weight = jnp.full(N_BATCH, len(ROWS) / N_BATCH) if weighted else None
        batch = Batch(rows[index], weight)
        e = algorithm.estimate(algorithm.noise(k2, batch), algorithm.parts, batch, ())
        return jax.tree.map(jnp.negative, e.grads), e.value

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one), compiler_options=FAST)(jr.split(jr.key(seed), n)))


def raveled(tree, lead=0):
    return np.concatenate([a.reshape(*a.shape[:lead], -1) for a in jax.tree.leaves(tree)], -1)


def agrees(samples, reference):
    """Do the means agree, all of them together at LEVEL?"""
    samples, reference = raveled(samples, 1), raveled(reference)
    se = samples.std(0) / np.sqrt(len(samples))
    moving = se > 1e-12
    z = np.abs(samples.mean(0) - reference)[moving] / se[moving]
    still = np.abs(samples.mean(0) - reference)[~moving]
    return z.max(initial=0) < norm.isf(LEVEL / (2 * samples.shape[1])) and still.max(initial=0) < 1e-9


@pytest.fixture(scope="module")
def parts():
    with jax.enable_x64(True):
        return machine()


@pytest.fixture(scope="module")
def references(parts):
    """{name: gradient in the model (theta) or in q (phi)}."""
    with jax.enable_x64(True):
        of_phi = {"wake": over_rows(functools.partial(reweighted, which="phi")), "sleep": sleep_phi, "both": both_phi}
        of_theta = {
            "ws": over_rows(wake_theta),
            "rws": over_rows(functools.partial(reweighted, which="theta")),
            "evidence": over_rows(log_evidence),
        }
        phi = {n: gradient(f, parts).family for n, f in of_phi.items()}
        return phi | {n: gradient(f, parts).model for n, f in of_theta.items()}


ALGORITHMS = {
    "wake-sleep": (lambda p: WakeSleep(p, OPTIMISER, 2), "ws", "sleep"),
    "wake-wake": (lambda p: ReweightedWakeSleep(p, OPTIMISER, 2, sleep_phi=False), "rws", "wake"),
    "reweighted, asleep": (lambda p: ReweightedWakeSleep(p, OPTIMISER, 2, wake_phi=False), "rws", "sleep"),
    "reweighted, both": (lambda p: ReweightedWakeSleep(p, OPTIMISER, 2), "rws", "both"),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_expected_gradients_are_those_of_enumeration(parts, references, name):
    make, theta, phi = ALGORITHMS[name]
    grads, _ = estimates(make(parts), seed=list(ALGORITHMS).index(name))
    assert agrees(grads.model, references[theta])
    assert agrees(grads.family, references[phi])
    others = {"ws": "evidence", "rws": "ws", "sleep": "wake", "wake": "sleep", "both": "wake"}  # must not pass
    assert not agrees(grads.model, references[others[theta]])
    assert not agrees(grads.family, references[others[phi]])


def test_a_batch_without_its_weights_fails(parts, references):
    grads, _ = estimates(ReweightedWakeSleep(parts, OPTIMISER, 2), seed=11, weighted=False)
    assert not agrees(grads.model, references["rws"])
    assert not agrees(grads.family, references["both"])


def test_rows_that_pad_a_batch_count_for_nothing(parts):
    algorithm = ReweightedWakeSleep(parts, OPTIMISER, 2)
    full = Batch(jnp.asarray(ROWS[:2]), jnp.array([1.5, 0.0]))
    noise = algorithm.noise(jr.key(0), full)
    other = Batch(full.rows.at[1].set(1 - full.rows[1]), full.weight)
    estimate = jax.jit(lambda batch: algorithm.estimate(noise, parts, batch, ()), compiler_options=FAST)
    a, b = estimate(full), estimate(other)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-12)


def test_reweighted_theta_tends_to_the_gradient_of_the_evidence(parts, references):
    """Bias O(1/K): exact for one draw (it is wake-sleep) and two, estimated for 100."""
    target = raveled(references["evidence"])
    bias = lambda g: float(np.linalg.norm(raveled(g) - target))
    grads, _ = estimates(ReweightedWakeSleep(parts, OPTIMISER, 100, sleep_phi=False), seed=12, n=4_000)
    many = jax.tree.map(lambda a: a.mean(0), grads.model)
    assert bias(references["rws"]) < 0.8 * bias(references["ws"])
    assert bias(many) < 0.1 * bias(references["ws"])


def test_values_are_the_elbo_and_the_bound_of_two_draws(parts):
    @functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
    def exact(k):
        total = 0.0
        for x in jnp.asarray(ROWS, float):
            log_p, log_q = tables(parts.model, parts.family, x)
            w, q = log_p - log_q, jnp.exp(log_q)
            pairs = jnp.logaddexp(w[:, None], w[None, :]) - jnp.log(2)
            total += q @ w if k == 1 else q @ pairs @ q
        return total

    for seed, (algorithm, k) in enumerate(
        [(WakeSleep(parts, OPTIMISER, 1), 1), (ReweightedWakeSleep(parts, OPTIMISER, 2, sleep_phi=False), 2)]
    ):
        values = estimates(algorithm, seed=20 + seed)[1]
        z = lambda k: (values.mean() - float(exact(k))) / (values.std() / np.sqrt(len(values)))
        assert abs(z(k)) < norm.isf(LEVEL / 2)
        assert abs(z(3 - k)) > norm.isf(LEVEL / 2)  # the other bound must not pass


def test_joint_draws_have_the_law_of_the_model(parts):
    """GENERATIVE. Chi-squared of 128 cells; a model with another bias must not pass."""

    def law(model):
        log_p = jnp.stack([tables(model, parts.family, x)[0] for x in jnp.asarray(X)])
        return np.exp(np.asarray(log_p)).ravel()

    z, x = jax.jit(jax.vmap(parts.model.sample_joint))(jr.split(jr.key(5), ESTIMATES))
    place = lambda a: np.asarray(a) @ 2 ** np.arange(a.shape[1])[::-1]
    bits = np.concatenate([np.stack([np.asarray(s["h1"]), np.asarray(s["h2"])]) for s in [states(parts)]])
    codes = place(np.concatenate([bits[0], bits[1]], 1))
    index = np.argsort(codes)[place(np.concatenate([np.asarray(z["h1"]), np.asarray(z["h2"])], 1)).astype(int)]
    counts = np.bincount(place(np.asarray(x)).astype(int) * 16 + index, minlength=128)
    statistic = lambda p: (((counts - ESTIMATES * p) ** 2) / (ESTIMATES * p)).sum()
    assert law(parts.model).sum() == pytest.approx(1)
    assert statistic(law(parts.model)) < chi2.isf(LEVEL, 127)
    other = eqx.tree_at(lambda m: m.decoder.net.net.biases[-1], parts.model, replace_fn=lambda b: b + 0.2)
    assert statistic(law(other)) > chi2.isf(LEVEL, 127)


# ---- whole fits -----------------------------------------------------------------------------------------------------
def data():
    with jax.enable_x64(False):
        rng = np.random.default_rng(0)
        h = rng.random((400, 2)) < [0.3, 0.6]
        return (rng.random((400, 6)) < 0.1 + 0.8 * h[:, [0, 0, 0, 1, 1, 1]]).astype(np.uint8)


@pytest.mark.parametrize("method", ["wake-sleep", "reweighted_wake_sleep"])
def test_fits_come_near_the_best_possible(method):
    """Two causes of six bits each: log p(x) is -2.75 a row at the truth, -4.1 for independent bits."""
    x = data()
    with jax.enable_x64(False):
        model = LatentVariable.belief_net(jr.key(0), (3,), (6,), mean=x.mean(0))
        fit = jn.fit(model, x, method=method, n_steps=800, optimizer=2e-2, batch_size=100, n_samples=4)
    p = np.array([0.3, 0.6])
    truth = np.zeros(len(x))
    for h in itertools.product([0, 1], repeat=2):
        on = 0.1 + 0.8 * np.repeat(h, 3)
        prior = np.prod(np.where(h, p, 1 - p))
        truth += prior * np.prod(np.where(x, on, 1 - on), axis=1)
    found = fit.diagnosis.details["log_likelihood_per_datum"]
    assert found > np.log(truth).mean() - 0.15
    assert fit.options["gradient"] in ("WakeSleep", "ReweightedWakeSleep")


def test_refusals():
    model = LatentVariable.belief_net(jr.key(0), (3,), (6,))
    x = data()
    for axis in ({"gradient": jn.gradients.LeaveOneOut()}, {"objective": "elbo"}, {"plan": "iid"}):
        with pytest.raises(jn.OptionError, match=f"wake-sleep.*{next(iter(axis))}"):
            jn.fit(model, x, method="wake-sleep", **axis)
    local = jn.models.LogDensity(lambda z, x: -0.5 * ((z - x) ** 2).sum(), (6,), local=True)
    with pytest.raises(jn.IncompatibleComposition, match="can be drawn from the model together"):
        jn.fit(local, x, method="wake-sleep")
    with pytest.raises(jn.IncompatibleComposition, match="a latent for each row"):
        jn.fit(jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,)), method="wake-wake")
    with pytest.raises(jn.IncompatibleComposition, match="binary"):
        jn.fit(model, x, method="wake-sleep", family=jn.families.Amortised())
    with pytest.raises(jn.IncompatibleComposition, match="n_samples >= 2"):
        jn.fit(model, x, method="wake-wake", n_samples=1)
    with pytest.raises(jn.OptionError, match="would not be trained"):
        ReweightedWakeSleep(Machine(model, jn.families.Amortised()), OPTIMISER, wake_phi=False, sleep_phi=False)
    with pytest.raises(jn.OptionError, match="wake-sleep"):
        jn.fit(model, x, method="wake")
