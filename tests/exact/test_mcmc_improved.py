"""VI with draws that MCMC improves. One HMC step of one leapfrog step makes the law of z_1 an integral over z_0 and the
momentum, so that the objectives and their gradients are sums over a grid. Statistical tests compare means with them at
level 1e-4 for each family of numbers, and have a control that must fail.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from scipy.stats import norm

import jensen as jn
from jensen.algorithms import VCD, Hoffman
from jensen.algorithms.descent import Optimiser
from jensen.algorithms.machine import Machine
from jensen.algorithms.mcmc_improved import Carry
from jensen.batch import Batch
from jensen.cell_models import generic
from jensen.cli.choices import method
from jensen.families.noise import iid
from jensen.hamiltonian import Chain
from jensen.models import LatentVariable
from jensen.models.likelihoods import GaussianLikelihood
from jensen.nets import MLP
from jensen.tree import split_trainable, stop

LEVEL, ESTIMATES, STEP = 1e-4, 20_000, 0.4
ROWS = np.array([[0.3, -1.2], [1.4, 0.2], [-0.5, 0.9], [0.1, 0.4]])
OPTIMISER = Optimiser(optax.sgd(1.0))
GRID = np.linspace(-6, 6, 241)
FAST = {"xla_backend_optimization_level": 0}  # compiling is what these tests cost


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def machine():
    """Four rows of two columns, a scalar latent, a decoder with a hidden layer: a posterior that is not Gaussian."""
    k1, k2 = jr.split(jr.key(5))
    model = LatentVariable(1, MLP(k1, 1, (3,), 2, activation="tanh"), GaussianLikelihood((2,), 0.7))
    family = jn.families.Amortised(jn.families.MeanField(scale=0.8), hidden=())
    return generic(Machine(model, family.bind(model.latents, ROWS, k2)))


# ---- the reference: sums over z_0 and the momentum ----------------------------------------------------------------
def on_grid(parts, x):
    """(log p(x, z), log q0(z)) at the points of the grid; q0's parameters are live, those of the model too."""
    z = jnp.asarray(GRID)[:, None]
    q = parts.family(x)
    return jax.vmap(lambda z: parts.model.log_density(z, x))(z), jax.vmap(q.log_prob)(z)


def after_one_step(parts, x, g, weights):
    """E[g(z_1)], z_0 having these weights on the grid; g(z) of one z."""
    log_p = lambda u: parts.model.log_density(u, x)
    chain = Chain(1, 1)

    def one(z0, p):
        accepted = chain(log_p, z0[None], {"momenta": p[None, None], "uniforms": jnp.zeros(1)}, STEP)
        a = accepted.acceptance
        return a * g(accepted.end.u) + (1 - a) * g(z0[None])

    p = jnp.asarray(GRID[::3])
    density = jnp.exp(-0.5 * p**2) / jnp.exp(-0.5 * p**2).sum()
    of_z = jax.vmap(lambda z0: (density * jax.vmap(lambda p: one(z0, p))(p)).sum())(jnp.asarray(GRID))
    return (weights * of_z).sum()


def terms(parts, x):
    """Of one row: E_q0[f]; E_q1[f] as a function of the law of z_0 alone; E_q1[log q0]; E_q1[log p]: what is ascended, with
    weights 1, -alpha, alpha and 1. The first three move q0, the last the model."""
    fixed = Machine(stop(parts.model), parts.family)
    log_p, log_q = on_grid(fixed, x)
    q = parts.family(x)
    mass = (GRID[1] - GRID[0]) * jnp.exp(log_q)
    f = lambda z: fixed.model.log_density(z, x) - stop(q).log_prob(z)
    after = functools.partial(after_one_step, Machine(fixed.model, None), x)
    still = jax.lax.stop_gradient(mass)
    log_p_live = lambda z: parts.model.log_density(z, x)
    return jnp.stack(
        [(mass * (log_p - log_q)).sum(), after(f, mass), after(q.log_prob, still), after(log_p_live, still)]
    )


@functools.cache
def gradients_of_terms():
    """(4, parameters), summed over the rows."""
    parts = machine()
    diff, rest = split_trainable(parts)
    total = lambda d: jax.lax.map(lambda x: terms(eqx.combine(d, rest), x), jnp.asarray(ROWS)).sum(0)
    return raveled(jax.jit(jax.jacrev(total))(diff), 1)


def reference(alpha, contrast=1, third=1):
    return np.array([1, -contrast * alpha, third * alpha, 1]) @ gradients_of_terms()


# ---- the estimates ------------------------------------------------------------------------------------------------
def raveled(tree, lead=0):
    return np.concatenate([np.asarray(a).reshape(*a.shape[:lead], -1) for a in jax.tree.leaves(tree)], -1)


def made(alpha, n_samples):
    options = {"n_steps": 1, "n_leapfrog": 1, "step_size": STEP}
    parts = machine()
    if alpha == 0:
        return Hoffman(parts, OPTIMISER, n_samples, **options)
    return VCD(parts, OPTIMISER, n_samples, alpha=alpha, **options)


@functools.cache
def estimates(alpha, n_samples):
    """(n, parameters) ascent directions, each from a weighted minibatch of two of the four rows, and values."""
    algorithm, rows = made(alpha, n_samples), jnp.asarray(ROWS)
    carry = algorithm.carry(None)._replace(baseline=jnp.asarray(0.7))

    def one(key):
        k1, k2 = jr.split(key)
        batch = Batch(rows[jr.permutation(k1, 4)[:2]], jnp.full(2, 2.0))
        e = algorithm.estimate(algorithm.noise(k2, batch), algorithm.parts, batch, carry)
        return jax.tree.map(jnp.negative, e.grads), e.value

    grads, values = jax.jit(jax.vmap(one), compiler_options=FAST)(jr.split(jr.key(8), ESTIMATES))
    return raveled(grads, 1), np.asarray(values)


def agrees(samples, expected):
    se = samples.std(0) / np.sqrt(len(samples))
    return np.abs((samples.mean(0) - expected) / se).max() < norm.isf(LEVEL / (2 * samples.shape[1]))


@pytest.mark.parametrize(("alpha", "n_samples"), [(0.0, 1), (1.0, 1), (1.0, 2), (0.4, 1)])
def test_gradients_are_those_of_the_objectives(alpha, n_samples):
    """Of q0's and of the model's, from minibatches, with either control variate."""
    samples, values = estimates(alpha, n_samples)
    assert agrees(samples, reference(alpha))
    parts = machine()
    h = GRID[1] - GRID[0]
    elbo = sum(float((h * jnp.exp(b) * (a - b)).sum()) for a, b in (on_grid(parts, x) for x in jnp.asarray(ROWS)))
    assert agrees(values[:, None], np.array([elbo]))


@pytest.mark.parametrize("term", ["contrast", "third"])
def test_without_a_term_the_gradient_is_another(term):
    """The negative control."""
    assert not agrees(estimates(1.0, 1)[0], reference(1.0, **{term: 0}))


def test_the_reference_is_the_gradient_of_the_divergence():
    """-L in the two parameters of one row's q0, by finite differences."""
    parts, x = machine(), jnp.asarray(ROWS[1])

    def shifted(shift):
        q = parts.family(x)
        q = eqx.tree_at(lambda q: (q.loc, q.log_scale), q, (q.loc + shift[0], q.log_scale + shift[1]))
        return Machine(stop(parts.model), lambda x: q)

    values = jax.jit(lambda s: terms(shifted(s), x))
    minus_divergence = lambda s: float(values(s) @ jnp.array([1.0, -1.0, 0.0, 0.0]))
    e = 1e-4
    differences = [(minus_divergence(e * d) - minus_divergence(-e * d)) / (2 * e) for d in jnp.eye(2)]
    gradient = jnp.array([1.0, -1.0, 1.0]) @ jax.jit(jax.jacrev(lambda s: terms(shifted(s), x)[:3]))(jnp.zeros(2))
    np.testing.assert_allclose(gradient, differences, rtol=1e-5)
    assert minus_divergence(jnp.zeros(2)) < 0


# ---- the divergence -----------------------------------------------------------------------------------------------
def gaussian(loc, scale, alpha=1.0, seed=0, n=4000, **chain):
    """One estimate of VCD with n draws for the posterior N(1, 0.5^2), evidence e^3, q0 = N(loc, scale^2)."""
    model = jn.models.LogDensity(lambda z: 3 + jax.scipy.stats.norm.logpdf(z, 1.0, 0.5).sum(), (1,))
    q = jn.families.MeanField((1,), loc=jnp.asarray([loc]), scale=scale)
    algorithm = VCD(Machine(model, q), OPTIMISER, n, alpha=alpha, **{"n_steps": 3, "step_size": 0.2} | chain)
    batch = Batch(None, None)
    return algorithm.estimate(algorithm.noise(jr.key(seed), batch), algorithm.parts, batch, algorithm.carry(batch))


def divergence(e):
    return float(e.carry.contrast) / 0.05  # the running mean moves by 1 - MEMORY of it


@pytest.mark.parametrize(("loc", "scale"), [(1.0, 0.3), (1.0, 0.9), (0.2, 0.5), (2.5, 0.2)])
def test_the_divergence_is_positive(loc, scale):
    assert divergence(gaussian(loc, scale)) > 0.01


def test_the_divergence_is_zero_at_the_posterior_and_the_value_is_the_evidence():
    e = gaussian(1.0, 0.5)
    assert abs(divergence(e)) < 1e-9 and abs(float(e.value) - 3) < 1e-9
    direction = raveled(e.grads.family)  # the score terms have mean zero; the path is exactly zero
    assert np.abs(direction).max() < norm.isf(LEVEL / 4) * 3 / np.sqrt(4000)


def test_hmc_leaves_its_target_invariant_and_needs_its_rejections():
    """Draws of a correlated Gaussian stay such draws; accepted without looking, long steps spoil them."""
    c = jnp.asarray([[1.0, 0.8], [0.8, 1.0]])
    root, precision = jnp.linalg.cholesky(c), jnp.linalg.inv(c)
    chain, n = Chain(2, 3), 20_000
    u = jr.normal(jr.key(1), (n, 2)) @ root.T
    noise = iid(jr.key(2), chain.noise_law(2), (n,))
    run = jax.jit(jax.vmap(lambda u, e: chain(lambda u: -0.5 * u @ precision @ u, u, e, 0.6)))
    moved = run(u, noise)
    features = lambda u: np.stack([u[:, 0], u[:, 1], u[:, 0] ** 2, u[:, 1] ** 2, u[:, 0] * u[:, 1]], 1)
    expected = np.array([0, 0, 1, 1, 0.8])
    assert 0.3 < float(moved.acceptance.mean()) < 0.95
    assert agrees(features(np.asarray(moved.end.u)), expected)
    always = run(u, noise | {"uniforms": jnp.full_like(noise["uniforms"], 1e-300)})
    assert not agrees(features(np.asarray(always.end.u)), expected)


# ---- fits ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "chosen", [jn.methods.Hoffman(step_size=0.2), jn.methods.VCD(step_size=0.2)], ids=lambda m: m.name
)
def test_improved_draws_have_the_posteriors_covariance(chosen):
    c = np.array([[1, 0.9], [0.9, 1]])
    precision = np.linalg.inv(c).astype(np.float32)
    model = jn.models.LogDensity(lambda z: -0.5 * z @ precision @ z, (2,))
    with jax.enable_x64(False):
        fit = jn.fit(model, method=chosen, optimizer=0.02, n_steps=1500, progress=False)
        z, z0 = np.asarray(fit.sample(4000)), np.asarray(jax.vmap(fit.family.start.sample)(jr.split(jr.key(0), 4000)))
    off = lambda z: np.abs(np.cov(z.T) - c).max()
    assert off(z) < 0.15 < 0.6 < off(z0)  # a mean field has no correlation
    assert str(fit.verdict) != "RELIABLE" and any("HMC steps" in r for r in fit.reasons)
    sd = np.exp(fit.family.start.log_scale)
    expected = np.sqrt(1 - 0.9**2)  # the ELBO's mean field
    assert (np.abs(sd - expected) < 0.06).all() if chosen.name == "hoffman" else (sd > 1.1 * expected).all()


def test_a_chain_that_never_moves_is_reported():
    model = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
    with jax.enable_x64(False):
        fit = jn.fit(model, method=jn.methods.VCD(step_size=1e20), optimizer=0.01, n_steps=200, progress=False)
    assert str(fit.verdict) == "UNRELIABLE" and any("do not move" in r for r in fit.reasons)


def test_a_fit_of_rows_draws_for_new_rows_and_comes_back_from_a_file(tmp_path):
    with jax.enable_x64(False):
        rng = np.random.default_rng(0)
        x = (rng.random((60, 6)) < 0.4).astype(np.float32)
        model = LatentVariable.mlp(jr.key(0), 2, (6,), hidden=(4,))
        fit = jn.fit(
            model, x, family=jn.families.Amortised(hidden=(4,)), method="vcd", batch_size=20, optimizer=1e-2,
            n_steps=60, progress=False,
        )  # fmt: skip
        z = fit.sample(5, data=x[:7])
        assert z.shape == (5, 7, 2) and fit.options["gradient"] == "VCD"
        with pytest.raises(jn.ModelError, match="Markov chain"):
            fit.log_prob(z, data=x[:7])
        fit.save(tmp_path)
        np.testing.assert_array_equal(jn.load(tmp_path, data=x).sample(5, data=x[:7]), z)
        found = fit.log_likelihood(x[:7], n_samples=200)
        assert found.values.shape == (7,) and (found.ess > 1).all()


def test_a_vae_encodes_rows_by_improved_draws_and_scores_them_by_q0():
    x = (np.random.default_rng(0).random((40, 5)) < 0.4).astype(np.float32)
    with jax.enable_x64(False):
        by = jn.methods.Hoffman(n_steps=2, n_leapfrog=2)
        vae = jn.zoo.VAE(2, hidden=(4,), method=by, n_steps=30, batch_size=20, n_importance=64, progress=False).fit(x)
        z = vae.transform(x)
        assert (
            z.shape == (40, 2) and np.isfinite(vae.score_samples(x)).all() and vae.elbo(x) < vae.score_samples(x).sum()
        )
        np.testing.assert_array_equal(vae.transform(x[3:5]), z[3:5])
        start = np.asarray(jax.vmap(lambda x: vae.fit_.family.start(x).loc)(x))
        assert 0.01 < np.abs(z - start).mean() < 1


def test_methods_with_options_on_the_command_line():
    assert (
        method("VCD(n_steps=4, alpha=0.5)") == jn.methods.VCD(n_steps=4, alpha=0.5)
        and method("vcd") == jn.methods.VCD()
    )
    for wrong, match in (
        ("laplace(n=1)", "unexpected keyword"),
        ("nope(n=1)", "no such method"),
        ("VCD(steps=4)", "made with these arguments"),
        ("VCD(4)", "keyword"),
    ):
        with pytest.raises(jn.OptionError, match=match):
            method(wrong)


def test_what_does_not_fit_is_refused():
    x = np.zeros((6, 3))
    with pytest.raises(jn.OptionError, match="out of range"):
        jn.fit(machine().model, ROWS, method=jn.methods.VCD(n_steps=0))
    with pytest.raises(jn.OptionError, match="out of range"):
        jn.fit(machine().model, ROWS, method=jn.methods.VCD(alpha=1.5))
    with pytest.raises(jn.OptionError, match=r"vcd.*gradient"):
        jn.fit(machine().model, ROWS, method="vcd", gradient="pathwise")
    net = LatentVariable.belief_net(jr.key(0), (2,), (3,))
    with pytest.raises(jn.IncompatibleComposition, match="sample path"):
        jn.fit(net, x, method="hoffman", n_steps=2)
    rows = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (1,), log_likelihood=lambda z, x: -((x - z) ** 2).sum())
    with pytest.raises(jn.IncompatibleComposition, match="posterior invariant"):
        jn.fit(rows, x, method="vcd", batch_size=2, n_steps=2)


def test_the_carry_follows_acceptance():
    e = gaussian(1.0, 0.5, step_size=0.01, n=50)
    assert isinstance(e.carry, Carry) and float(e.carry.log_step) > np.log(0.01)
