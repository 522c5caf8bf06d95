"""Relaxed variables: their laws, the density of `Concrete`, what is refused, and where the bias of the biased goes."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import ks_2samp, kstest

from jensen import IncompatibleComposition, ModelError, OptionError
from jensen.batch import Batch
from jensen.families import Bernoulli, Categorical, Concrete, Layers, MeanField, OnRelaxed, relaxed
from jensen.families.relaxation import Binary, OneHot
from jensen.gradients import LAX, REBAR, RELAX, GumbelSoftmax, Pathwise, StraightThrough, plans
from jensen.gradients.base import Parts, estimate, value_and_grad
from jensen.judge import Composition, check
from jensen.models import LatentVariable, LogDensity
from jensen.objectives import ELBO

LEVEL = 1e-5  # of each Kolmogorov-Smirnov test; some 30 of them: 3e-4 in all
KINDS = {"binary": Binary(), "one-hot": OneHot()}
LOGITS = np.array([0.8, -1.2, 0.3])
EXTREME = np.array([-90.0, -5.0, 0.0, 5.0, 90.0])


def _draws(kind, logits, n, seed):
    u = kind.law(logits.shape).draw(jr.key(seed), (n,))
    return u, jax.jit(jax.vmap(lambda u: kind.reparameterise(logits, u)))(u)


@pytest.fixture(params=list(KINDS))
def case(request):
    return KINDS[request.param], jnp.asarray(LOGITS)


# ---- z, hard(z), and z given hard(z) --------------------------------------------------------------------------------


def test_hard_draws_have_the_probabilities(case):
    """|z| < 5.5 for six numbers: level 2e-7."""
    kind, logits = case
    b = kind.hard(_draws(kind, logits, 100_000, 0)[1])
    p = kind.mean(logits)
    assert set(np.unique(b)) == {0.0, 1.0}
    assert jnp.all(jnp.abs(b.mean(0) - p) < 5.5 * jnp.sqrt(p * (1 - p) / len(b)))


def test_a_hard_bernoulli_is_the_familys_own_draw():
    kind, logits = Binary(), jnp.asarray(LOGITS)
    u, z = _draws(kind, logits, 1000, 1)
    np.testing.assert_array_equal(kind.hard(z), jax.vmap(Bernoulli(logits).transform)(u))


def _conditional(kind, logits):
    return jax.jit(jax.vmap(lambda b, v: kind.given(logits, b, v), (None, 0)))


def _least_p_value(kind, logits, given):
    """Of two-sample tests for each state: coordinates and their sum, z chosen by hard(z) = b against given(b, v)."""
    z = _draws(kind, logits, 20_000, 2)[1]
    p = []
    noise = kind.law(logits.shape).draw(jr.key(3), (len(z),))
    for state in np.unique(np.asarray(kind.hard(z)), axis=0):
        chosen = z[jnp.all(kind.hard(z) == state, -1)]
        drawn = given(jnp.asarray(state), noise)[: len(chosen)]
        pairs = [*zip(chosen.T, drawn.T, strict=True), (chosen.sum(-1), drawn.sum(-1))]
        p += [ks_2samp(np.asarray(a), np.asarray(b)).pvalue for a, b in pairs]
    return min(p)


def test_the_conditional_has_the_law_of_z_given_b(case):
    """Control: the conditional of other logits is told apart."""
    kind, logits = case
    assert _least_p_value(kind, logits, _conditional(kind, logits)) > LEVEL
    assert _least_p_value(kind, logits, _conditional(kind, logits + jnp.array([0.5, 0.0, 0.0]))) < LEVEL


def test_the_conditional_keeps_b(case):
    kind, logits = case
    for b in np.unique(kind.hard(_draws(kind, logits, 50, 4)[1]), axis=0):
        v = kind.law(logits.shape).draw(jr.key(5), (200,))
        np.testing.assert_array_equal(kind.hard(_conditional(kind, logits)(b, v)), jnp.tile(b, (200, 1)))


def test_the_noise_of_the_conditional_is_found_again(case):
    """It is uniform, whatever b: what makes the coupled control variate unbiased."""
    kind, logits = case
    z = _draws(kind, logits, 20_000, 6)[1]
    v = jax.jit(jax.vmap(lambda z: kind.noise_given(logits, z)))(z)
    b = kind.hard(z)
    np.testing.assert_allclose(jax.vmap(lambda b, v: kind.given(logits, b, v))(b, v), z, atol=1e-8)
    for d, value in itertools.product(range(3), (0.0, 1.0)):
        assert kstest(np.asarray(v[b[:, d] == value][:, d]), "uniform").pvalue > LEVEL
    if isinstance(kind, OneHot):
        for k, d in itertools.product(range(3), range(3)):
            assert kstest(np.asarray(v[b[:, k] == 1.0][:, d]), "uniform").pvalue > LEVEL


def test_pull_is_the_difference_of_the_two_derivatives(case):
    kind, logits = case
    u, z = _draws(kind, logits, 50, 7)

    def both(u, z, g):
        b, v = kind.hard(z), kind.noise_given(logits, z)
        difference = lambda a: kind.reparameterise(a, u) - kind.given(a, b, v)
        return jax.vjp(difference, logits)[1](g)[0], kind.pull(logits, z, g)

    g = jr.normal(jr.key(8), z.shape)
    if isinstance(kind, OneHot):
        g = g - g.mean(-1, keepdims=True)  # as of everything that sees z through a softmax
    by_vjp, by_hand = jax.vmap(both)(u, z, g)
    np.testing.assert_allclose(by_vjp, by_hand, atol=1e-9)


@pytest.mark.parametrize("name", list(KINDS))
def test_single_precision_stays_finite(name):
    """At the ends of the uniforms and for logits of +-90; values, and derivatives of first and second order."""
    with jax.enable_x64(False):
        kind, logits = KINDS[name], jnp.asarray(EXTREME, jnp.float32)
        eps = float(jnp.finfo(jnp.float32).eps)

        def everything(a, u, v, tau):
            z = kind.reparameterise(a, u)
            b = jax.lax.stop_gradient(kind.hard(z))
            tilde = kind.given(a, b, v)
            soft = kind.soft(z, tau) + kind.soft(tilde, tau)
            return jnp.sum(soft * jnp.arange(5.0) + 0.01 * (z + tilde) + kind.pull(a, z, soft))

        def at(u, v, tau):
            slope = lambda tau: jax.grad(everything)(logits, u, v, tau)
            bend = jax.grad(lambda tau: (slope(tau) ** 2).sum())(tau)
            z = kind.reparameterise(logits, u)
            return everything(logits, u, v, tau), slope(tau), bend, kind.noise_given(logits, z)

        ends = (jnp.full(5, u, jnp.float32) for u in (eps, 0.5, 1 - eps))
        points = itertools.product(*itertools.tee(ends, 2), (jnp.float32(0.05), jnp.float32(1.0)))
        out = jax.jit(jax.vmap(at))(*map(jnp.stack, zip(*points, strict=True)))
        assert all(bool(jnp.isfinite(a).all()) for a in out)


# ---- the density of Concrete ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.6, 3.0])
def test_the_relaxed_bernoulli_integrates_to_one(temperature):
    q = Concrete([0.7], temperature)
    t = np.linspace(-60, 60, 20_001) / temperature
    total = np.exp(jax.vmap(q.log_prob)(t[:, None])).sum() * (t[1] - t[0])
    np.testing.assert_allclose(total, 1, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_the_relaxed_categorical_integrates_to_one(temperature):
    """Over y = softmax(a_1, a_2, 0): dy = y_1 y_2 y_3 da, and log_prob is that of log y, log (p(y) y_1 y_2 y_3)."""
    q = Concrete([0.7, -0.4, 0.2], temperature, categories=True)
    axis = np.linspace(-40, 40, 801) / temperature
    a = np.stack(np.meshgrid(axis, axis, [0.0], indexing="ij"), -1).reshape(-1, 3)
    total = (
        np.exp(jax.vmap(lambda a: q.log_prob(jax.nn.log_softmax(a)))(jnp.asarray(a))).sum() * (axis[1] - axis[0]) ** 2
    )
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_the_density_is_the_papers():
    """Equations 10 and 26 of the reference, in y, by hand."""
    tau, a, y = 0.7, np.exp(0.4), np.array([0.05, 0.4, 0.93])
    by_hand = tau * a * y ** (-tau - 1) * (1 - y) ** (-tau - 1) / (a * y**-tau + (1 - y) ** -tau) ** 2
    found = jax.vmap(Concrete([0.4], tau).log_prob)(np.log(y / (1 - y))[:, None]) - np.log(y * (1 - y))
    np.testing.assert_allclose(found, np.log(by_hand), atol=1e-12)
    a, y = np.exp([0.4, -0.3, 0.9]), np.array([0.2, 0.5, 0.3])
    by_hand = 2 * tau**2 * np.prod(a * y ** (-tau - 1)) / np.sum(a * y**-tau) ** 3
    found = Concrete(np.log(a), tau, categories=True).log_prob(jnp.log(y)) - np.log(y).sum()
    np.testing.assert_allclose(found, np.log(by_hand), atol=1e-12)


@pytest.mark.parametrize("categories", [False, True])
def test_draws_have_the_density_and_its_gradient(categories):
    """E score = 0 and E[hessian + score score'] = 0: |z| < 5.5 for 20 numbers, level 1e-6; the score by differences."""
    q = Concrete([0.7, -0.4, 0.2], 0.6, categories=categories, train_temperature=True)
    flat, unravel = ravel_pytree(eqx.filter(q, eqx.is_inexact_array))
    rest = eqx.filter(q, eqx.is_inexact_array, inverse=True)
    log_prob = lambda v, t: eqx.combine(unravel(v), rest).log_prob(t)
    draws = jax.jit(jax.vmap(lambda e: q.transform(e)))(q.noise(jr.key(9), (20_000,)))
    score = jax.jit(jax.vmap(lambda t: jax.grad(log_prob)(flat, t)))(draws)
    bend = jax.jit(jax.vmap(lambda t: jax.hessian(log_prob)(flat, t)))(draws)
    identity = (bend + score[:, :, None] * score[:, None, :]).reshape(len(score), -1)
    for moment in (score, identity):
        assert jnp.all(jnp.abs(moment.mean(0)) < 5.5 * moment.std(0) / len(score) ** 0.5 + 1e-9)
    step = 1e-6 * jnp.eye(4)[0]
    slope = (log_prob(flat + step, draws[0]) - log_prob(flat - step, draws[0])) / 2e-6
    np.testing.assert_allclose(slope, score[0, 0], atol=1e-7)


def test_single_precision_keeps_the_density_where_y_rounds_to_one():
    with jax.enable_x64(False):
        q, t = Concrete([3.0], 0.1), jnp.array([150.0], jnp.float32)
        assert q.values(t) == 1
        value, slope = jax.value_and_grad(q.log_prob)(t)
        np.testing.assert_allclose(value, np.log(0.1) + 3 - 15 - 2 * np.log1p(np.exp(-12.0)), rtol=1e-6)
        np.testing.assert_allclose(slope, -0.1 * (1 - 2 / (1 + np.exp(12.0))), rtol=1e-4)


def test_a_relaxed_model_has_a_bound_of_its_own():
    """The ELBO of a relaxed prior and decoder lies below the relaxed evidence, both by quadrature in t."""
    decoder = OnRelaxed(lambda y: 2.0 * y)
    model = LatentVariable(relaxed(Bernoulli([0.3]), 0.7), decoder, "gaussian", shape=(1,))
    t, x = jnp.linspace(-80, 80, 20_001)[:, None], jnp.array([1.4])
    step = t[1, 0] - t[0, 0]
    log_joint = jax.vmap(lambda t: model.log_density(t, x))(t)
    log_evidence = jax.nn.logsumexp(log_joint) + jnp.log(step)
    gaps = []
    for logit in (0.3, 0.8, 1.3):
        log_q = jax.vmap(Concrete([logit], 0.7).log_prob)(t)
        gaps.append(log_evidence - (jnp.exp(log_q) * (log_joint - log_q)).sum() * step)
    assert min(gaps) > 0 and gaps[1] < gaps[0]
    prior = Concrete([0.3], 0.7)
    np.testing.assert_allclose(model.log_density(t[0], x) - model.log_likelihood(t[0], x), prior.log_prob(t[0]))


# ---- biased estimators: where the bias goes -------------------------------------------------------------------------


def _gradient(estimator, log_p, logit=0.4, n=100_000, carry=()):
    """The mean gradient in the logit of one Bernoulli, by the midpoint rule in its uniform."""
    model = LogDensity(lambda b: log_p(b[0]), (1,))
    u = ((jnp.arange(n) + 0.5) / n)[:, None]
    parts = Parts(model, Bernoulli([logit]), estimator)
    e = jax.jit(lambda u: estimate((u,), parts, ELBO(), Batch(None), carry))(u)
    return float(e.value), float(-e.grads.family.logits[0]), e.carry


def _exact(log_p, logit=0.4):
    p = lambda a: jax.nn.sigmoid(a)
    elbo = lambda a: p(a) * log_p(1.0) + (1 - p(a)) * log_p(0.0) + Bernoulli(jnp.array([a])).entropy()
    return float(elbo(logit)), float(jax.grad(elbo)(logit))


_CURVED = lambda b: 1.5 * jnp.sin(2.0 * b) - b**2


def test_the_bias_of_gumbel_softmax_goes_to_zero_with_the_temperature():
    value, gradient = _exact(_CURVED)
    found = {t: _gradient(GumbelSoftmax(t), _CURVED) for t in (0.5, 0.1, 0.02, 0.004)}
    bias = [abs(g - gradient) for _, g, _ in found.values()]
    assert bias[0] > 0.01 and bias[1] < bias[0] and bias[2] < bias[1] / 3 and bias[3] < 2e-3
    for v, _, _ in found.values():
        np.testing.assert_allclose(v, value, atol=1e-5)  # hard draws, at any temperature


def test_straight_through_is_exact_only_where_the_log_weight_is_linear():
    linear = lambda b: 1.3 * b
    np.testing.assert_allclose(_gradient(StraightThrough(), linear)[:2], _exact(linear), atol=1e-5)
    value, gradient = _gradient(StraightThrough(), _CURVED)[:2]
    np.testing.assert_allclose(value, _exact(_CURVED)[0], atol=1e-5)
    assert abs(gradient - _exact(_CURVED)[1]) > 0.02
    assert abs(_gradient(StraightThrough(0.5), _CURVED)[1] - _exact(_CURVED)[1]) > 0.02


def test_annealing_counts_the_steps():
    estimator = GumbelSoftmax(1.0, annealed_to=0.25, n_steps=2)
    carry = estimator.init(None)
    gradients = []
    for _ in range(4):
        _, g, carry = _gradient(estimator, _CURVED, carry=carry)
        gradients.append(g)
    fixed = [_gradient(GumbelSoftmax(t), _CURVED)[1] for t in (1.0, 0.5, 0.25, 0.25)]
    np.testing.assert_allclose(gradients, fixed, atol=1e-9)
    assert int(carry) == 4


@pytest.mark.parametrize("make", [lambda: REBAR(0.3, 0.7), lambda: RELAX((3,)), lambda: RELAX((3,), temperature=None)])
def test_what_is_learned_descends_the_square_of_the_gradient(make):
    """The estimator's own gradient against finite differences."""
    model = LogDensity(lambda h: _CURVED(h["a"].sum() - 0.7 * h["b"][0]), {"a": (2,), "b": (2,)})
    q = Layers({"a": 2, "b": 2})
    estimator = make().bind(model.latents, None, jr.key(1))
    own, rest = eqx.partition(estimator, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(own)
    carry = estimator.init(None)

    @jax.jit
    def at(v):
        parts = Parts(model, q, eqx.combine(unravel(v), rest))
        return value_and_grad(jr.key(2), parts, ELBO(), plans.IID(), Batch(None), carry, n_samples=5).grads

    square = lambda v: (ravel_pytree((lambda g: (g.model, g.family))(at(v)))[0] ** 2).sum()
    found = ravel_pytree(at(flat).estimator)[0]
    for i in range(0, len(flat), max(1, len(flat) // 4)):
        step = 1e-5 * jnp.eye(len(flat))[i]
        np.testing.assert_allclose(found[i], (square(flat + step) - square(flat - step)) / 2e-5, atol=1e-5)


def _variance(estimator, n_steps, t=0.45):
    """Of the gradient of E(b - t)^2 in the logit 1, after training of what the estimator learns."""
    model, q = LogDensity(lambda b: -((b[0] - t) ** 2), (1,)), Bernoulli(jnp.ones(1))
    own, rest = eqx.partition(estimator.bind(model.latents, None, jr.key(0)), eqx.is_inexact_array)
    adam = optax.adam(optax.cosine_decay_schedule(0.01, max(1, n_steps)))

    def grads(own, carry, keys):
        parts = Parts(model, q, eqx.combine(own, rest))
        one = lambda key: value_and_grad(key, parts, ELBO("entropy"), plans.IID(), Batch(None), carry, n_samples=1)
        return jax.vmap(one)(keys)

    def step(state, key):
        own, opt, carry = state
        e = grads(own, carry, jr.split(key, 200))
        of_own, carry = jax.tree.map(lambda a: a.mean(0), (e.grads.estimator, e.carry))
        updates, opt = adam.update(of_own, opt)
        return (optax.apply_updates(own, updates), opt, carry), None

    start = own, adam.init(own), rest.init(None)
    own, _, carry = jax.jit(lambda s: jax.lax.scan(step, s, jr.split(jr.key(3), n_steps))[0])(start)
    return jax.jit(grads)(own, carry, jr.split(jr.key(4), 20_000)).grads.family.logits.var()


def test_a_trained_network_leaves_far_less_variance_than_rebar():
    """Its constant is the best baseline, which a running mean is not; untrained it is REBAR (control)."""
    rebar = _variance(REBAR(), 2000)
    assert _variance(RELAX(), 2000) < 0.05 * rebar
    assert _variance(RELAX(), 0) > 0.5 * _variance(REBAR(), 0)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [GumbelSoftmax, StraightThrough, REBAR, lambda t: Concrete(temperature=t), lambda t: RELAX(temperature=t)]
)
def test_a_temperature_must_be_positive(make):
    with pytest.raises(OptionError, match=r"a temperature of 0 is the hard threshold(?s:.*)or temperature=0.5"):
        make(0.0)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="not a positive, finite number"):
            make(bad)


def test_other_options():
    with pytest.raises(OptionError, match=r"instead: StraightThrough\(\)"):
        GumbelSoftmax(0)
    with pytest.raises(OptionError, match="not a finite number"):
        REBAR(scale=float("inf"))
    with pytest.raises(OptionError, match="there is no step"):
        GumbelSoftmax(annealed_to=0.1, n_steps=0)
    with pytest.raises(OptionError, match="annealed_to"):
        GumbelSoftmax(annealed_to=0.0)
    with pytest.raises(OptionError, match="mean has no temperature"):
        StraightThrough(annealed_to=0.1)
    with pytest.raises(ModelError, match="neither a Bernoulli nor a categorical"):
        relaxed(MeanField((2,)))
    with pytest.raises(ModelError, match="no category axis"):
        Concrete(0.3, categories=True)


def test_a_relaxed_q_needs_a_relaxed_prior():
    decoder = lambda b: b @ jnp.ones((2, 1))
    model = LatentVariable(Bernoulli([0.1, 0.2]), decoder, "gaussian", shape=(1,))
    with pytest.raises(IncompatibleComposition, match=r"relax the prior too(?s:.*)gradients.GumbelSoftmax"):
        check(Composition(model, Concrete([0.0, 0.0]), ELBO(), Pathwise(), plans.IID()))
    kept = LatentVariable(relaxed(Bernoulli([0.1, 0.2])), OnRelaxed(decoder), "gaussian", shape=(1,))
    check(Composition(kept, Concrete([0.0, 0.0]), ELBO(), Pathwise(), plans.IID()))
    with pytest.raises(IncompatibleComposition, match="Concrete"):
        check(Composition(kept, Bernoulli([0.0, 0.0]), ELBO(), REBAR(), plans.IID()))
    assert relaxed(Categorical([0.1, 0.2, 0.3])).categories


def test_relaxed_estimators_need_layers_and_a_derivative():
    blind = LogDensity(lambda b: b.sum(), (2,), differentiable=False)
    for estimator in (REBAR(), RELAX(), GumbelSoftmax(), StraightThrough()):
        with pytest.raises(IncompatibleComposition, match="differentiable"):
            check(Composition(blind, Bernoulli([0.0, 0.0]), ELBO(), estimator, plans.IID()))
        with pytest.raises(IncompatibleComposition, match="layers"):
            check(Composition(blind, MeanField((2,)), ELBO(), estimator, plans.IID()))
    check(Composition(blind, Bernoulli([0.0, 0.0]), ELBO(), RELAX(temperature=None), plans.IID()))
    check(Composition(blind, MeanField((2,)), ELBO(), LAX(), plans.IID()))
    check(Composition(blind, Concrete([0.0, 0.0]), ELBO(), LAX(), plans.IID()))
