"""Mixed families against quadrature: bounds, weights, scores, gradients; what is shared by rows; what is refused."""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient
from sampled import FAST, Z_MAX, z_scores

import jensen as jn
from jensen.batch import Batch
from jensen.cell_models import generic
from jensen.errors import IncompatibleComposition, ModelError, OptionError
from jensen.families import (
    Amortised,
    Bernoulli,
    GlobalLocal,
    Hierarchical,
    MeanField,
    Mixture,
    Particles,
    Product,
    SemiImplicit,
    VariationalGP,
)
from jensen.gradients import UIVI, LeaveOneOut, Pathwise, plans
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.judge import Composition, check
from jensen.models import LogDensity
from jensen.nets import MLP
from jensen.objectives import ELBO
from jensen.tree import split_trainable

fast = functools.partial(jax.jit, compiler_options=FAST)
SMALL: dict[str, Any] = {"hidden": (4,), "activation": "tanh", "scale": 0.5}
N = 10_000


def spec(n):
    return jax.ShapeDtypeStruct((n,), jnp.result_type(float))


def bound(family, n) -> Any:
    """The family over n latents, with parameters off their starting values."""
    return generic(family.bind(spec(n), None, jr.key(3)))


def _narrow():
    """A reverse model."""
    return Amortised(MeanField(scale=0.5), hidden=(4,), activation="tanh")


@functools.cache
def semi(n_latents=1, n_noise=1, n_mixing=2) -> Any:
    return bound(SemiImplicit(n_mixing=n_mixing, n_noise=n_noise, **SMALL), n_latents)


def target(z):
    """A normalised log density: narrower than q, so that importance weights are bounded. Its evidence is 0."""
    return jax.scipy.stats.norm.logpdf(z, 0.3, 0.4).sum()


def nodes(n_dims, n=48):
    """Points and weights of a standard normal."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    points = np.stack(np.meshgrid(*[x] * n_dims, indexing="ij"), -1).reshape(-1, n_dims)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * n_dims, indexing="ij"), -1).reshape(-1, n_dims).prod(1)
    return jnp.asarray(points), jnp.asarray(weights)


def log_q(q, z, n=48):
    """log E_eps q(z | eps) by quadrature, eps standard normal."""
    eps, w = nodes(q.generating(q.sample(jr.key(0))).size, n)
    return jax.nn.logsumexp(jnp.log(w) + jax.vmap(lambda e: q.given(e).log_prob(z))(eps))


def elbo(q, log_p=target):
    """E_q[log p - log q] of one latent by quadrature over eps and the conditional's own noise."""
    eps, w = nodes(1)
    z = jax.vmap(lambda e: jax.vmap(q.given(e).transform)(eps))(eps)
    value = jax.vmap(jax.vmap(lambda z: log_p(z) - log_q(q, z)))(z)
    return w @ value @ w


@fast
def _log_weights(q, noise):
    def one(e):
        draw, ratio = q.transform_and_log_ratio(e)
        return target(q.latent(draw)) - ratio

    return jax.vmap(one)(noise)


def log_weights(q, n=N, seed=5):
    return np.asarray(_log_weights(q, q.noise(jr.key(seed), (n,))))


def off(values, expected):
    """How many standard errors the mean of the values is above what is expected."""
    return (values.mean() - expected) / (values.std() / len(values) ** 0.5)


# ---- bounds and weights ---------------------------------------------------------------------------------------------


def test_the_bound_rises_with_the_mixing_draws_to_the_elbo():
    """The same z with the first L of its mixing draws: steps of the bound at 5.2 standard errors. The control leaves out the
    eps that made z: it is above the ELBO."""
    exact, q = float(fast(elbo)(semi())), semi(n_mixing=200)

    def each(e):
        z, eps = q.transform(e)
        bounds = [target(z) - q.log_mixture(z, eps[: n + 1]) for n in (0, 1, 4, 16, 200)]
        return jnp.stack([*bounds, target(z) - q.log_mixture(z, eps[1:5])])

    *bounds, control = np.asarray(fast(jax.vmap(each))(q.noise(jr.key(5), (4000,)))).T
    for few, many in itertools.pairwise(bounds):
        assert off(many - few, 0.0) > Z_MAX
    assert abs(off(bounds[-1], exact)) < Z_MAX and exact < 0
    assert off(control - bounds[-1], 0.0) > Z_MAX


@pytest.mark.parametrize(
    "make",
    [
        lambda: semi(n_mixing=1),
        lambda: semi(2, 3),
        lambda: bound(SemiImplicit(mixing=MeanField((2,), scale=0.7), n_mixing=3, **SMALL), 2),
        lambda: bound(Hierarchical(reverse=_narrow()), 2),
        lambda: bound(Particles(3, **SMALL), 2),
    ],
    ids=["SemiImplicit", "SemiImplicit, 2 of 3", "trained mixing", "Hierarchical", "Particles"],
)
def test_weights_have_the_evidence_as_mean_and_the_bound_is_below_it(make):
    log_w = log_weights(make())
    assert abs(off(np.exp(log_w), 1.0)) < Z_MAX
    assert off(log_w, 0.0) < -Z_MAX


def test_the_bound_of_the_variational_process_is_below_the_evidence():
    assert off(log_weights(bound(VariationalGP(5, hidden=(4,)), 2)), 0.0) < -Z_MAX


def test_weights_without_the_generating_eps_are_too_large():
    q = semi(n_mixing=1)

    def one(e):
        z, eps = q.transform(e)
        return target(z) - q.log_mixture(z, eps[1:])

    assert off(np.exp(fast(jax.vmap(one))(q.noise(jr.key(5), (N,)))), 1.0) > Z_MAX


def test_the_auxiliary_bound_is_below_the_elbo_by_the_gap_of_the_reverse():
    """ELBO - bound = E KL(q(lam | z) || r(lam | z)), both sides by quadrature; and draws have that mean."""
    q = bound(Hierarchical(hidden=(3,), activation="tanh"), 1)
    lam, w = nodes(1)
    lam = q.mixing.loc + jnp.exp(q.mixing.log_scale) * lam
    z = jax.vmap(lambda l: jax.vmap(q.given(l).transform)(nodes(1)[0]))(lam)
    marginal = lambda z: jax.nn.logsumexp(jnp.log(w) + jax.vmap(lambda l: q.given(l).log_prob(z))(lam))
    beside = jnp.broadcast_to(lam[:, None], z.shape)
    each = lambda z, l: jnp.stack([target(z) - marginal(z), target(z) - q.log_ratio((z, l))])
    exact_elbo, exact_bound = jnp.einsum("i,j,ijk", w, w, fast(jax.vmap(jax.vmap(each)))(z, beside))
    assert exact_bound < exact_elbo < 0
    assert abs(off(log_weights(q), float(exact_bound))) < Z_MAX


def test_both_ways_to_log_ratio_agree():
    for q in (bound(Hierarchical(), 2), bound(VariationalGP(4), 2)):
        noise = q.noise(jr.key(1), (20,))
        draws, ratio = fast(jax.vmap(lambda e, q=q: q.transform_and_log_ratio(e)))(noise)
        apart, again = fast(jax.vmap(lambda e, q=q: (q.transform(e), q.log_ratio(q.transform(e)))))(noise)
        np.testing.assert_allclose(ratio, again, atol=1e-10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), draws, apart)


def test_the_process_is_that_of_gaussian_process_regression():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    gp = bound(VariationalGP(6, n_noise=3), 2).mixing
    lengths: Any = np.exp(-0.5 * np.asarray(gp.log_weights))
    options: Any = {"alpha": gp.nugget, "optimizer": None}
    twin: Any = GaussianProcessRegressor(RBF(lengths), **options).fit(gp.sources, gp.targets)
    xi = np.random.default_rng(0).normal(size=(5, 3))
    mean, sd = twin.predict(xi, return_std=True)
    found_mean, found_log_sd = fast(jax.vmap(lambda x: gp._conditional(x)))(jnp.asarray(xi))
    np.testing.assert_allclose(found_mean, mean, rtol=1e-7, atol=1e-9)
    expected = np.exp(gp.log_variance) * (sd[:, 0] ** 2 + gp.nugget)  # the twin's variance is in units of the kernel's
    np.testing.assert_allclose(np.exp(2 * found_log_sd), expected, rtol=1e-6)


# ---- UIVI -----------------------------------------------------------------------------------------------------------

# a quarter of a period of N(0, 1) a step: half of one would be antithetic, and far from independent of the start
GOOD = UIVI(n_burn_in=20, n_keep=3, n_leapfrog=6, step_size=0.25)
STUCK = UIVI(n_burn_in=0, n_keep=1, n_leapfrog=1, step_size=1e-6)


def _scores(q, gradient, n, n_nodes, from_prior=False):
    """(z, eps, estimated score, exact score) of n draws."""
    carry = gradient.init(None)
    exact = jax.grad(lambda z: log_q(q, z, n_nodes))

    def one(key):
        k1, k2, k3 = jr.split(key, 3)
        draw = q.transform(q.noise(k1))
        z, start = q.latent(draw), q.generating(draw)
        if from_prior:
            return z, start, jax.grad(q.log_joint)(z, q.generating(q.sample(k3))), exact(z)
        eps, _ = gradient._chain(lambda e: q.log_joint(z, e), start, k2, jnp.exp(carry.log_step))
        return z, start, jax.vmap(lambda e: jax.grad(q.log_joint)(z, e))(eps).mean(0), exact(z)

    return map(np.asarray, fast(jax.vmap(one))(jr.split(jr.key(8), n)))


@pytest.mark.parametrize("dims", [(1, 1, 80), (2, 2, 24)], ids=["1-D", "2-D"])
def test_the_score_is_that_of_quadrature_whatever_made_z(dims):
    """E (score - exact) f(z, eps) = 0 for several f: no function of z, nor of the eps that made it, tells the error."""
    q, n = semi(*dims[:2]), 4000

    def largest(z, eps, score, exact):
        features = np.concatenate([np.ones((n, 1)), z, z**2, eps, np.tanh(eps)], 1)
        return z_scores(((score - exact)[:, :, None] * features[:, None]).reshape(n, -1), 0.0).max()

    assert largest(*_scores(q, GOOD, n, dims[2])) < Z_MAX
    assert largest(*_scores(q, STUCK, n, dims[2])) > Z_MAX  # eps' is eps
    assert largest(*_scores(q, GOOD, n, dims[2], from_prior=True)) > Z_MAX  # eps' does not know z


def _gradients(gradient, n=6000):
    q = semi()
    parts = Parts(LogDensity(_bent, (1,)), q, gradient)
    carry = gradient.init(None)

    def one(key):
        out = value_and_grad(key, parts, ELBO(), plans.IID(), Batch(), carry, n_samples=1)
        return -ravel_pytree(out.grads.family)[0]

    return np.asarray(fast(jax.vmap(one), compiler_options=FAST)(jr.split(jr.key(2), n)))


def _bent(z):
    return -0.4 * (z**2).sum() + jnp.sin(2 * z).sum()


def test_the_gradient_is_that_of_the_elbo():
    """Of E_q[log p - log q], q without a bound; the control's chain stays where it starts."""
    params, rest = split_trainable(semi())
    exact = ravel_pytree(fast(jax.grad(lambda p: elbo(eqx.combine(p, rest), _bent)))(params))[0]
    assert z_scores(_gradients(GOOD), exact).max() < Z_MAX
    assert z_scores(_gradients(STUCK), exact).max() > Z_MAX


def test_importance_sampling_is_the_path_gradient_of_the_bound():
    """The same draws: the score is that of the mixture over them, the direct gradient (of mean zero) left out."""
    q, noise = semi(n_mixing=5), semi(n_mixing=5).noise(jr.key(1), (1,))
    made = Bound.make(LogDensity(_bent, (1,)), q, ELBO(), Batch())
    params, rest = split_trainable(q)

    def uivi(p):
        b = eqx.tree_at(lambda b: b.q, made, eqx.combine(p, rest))
        return UIVI("importance").terms((noise, noise), b, UIVI("importance").init(b)).surrogate

    def path(p):
        z, _ = jax.tree.map(lambda a: a[0], jax.vmap(eqx.combine(p, rest).transform)(noise))
        eps = stop_gradient(q.transform(jax.tree.map(lambda a: a[0], noise))[1])
        return _bent(z) - q.log_mixture(z, eps)

    for a, b in zip(jax.tree.leaves(jax.grad(uivi)(params)), jax.tree.leaves(jax.grad(path)(params)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_step_is_adapted_and_a_chain_that_cannot_move_is_told():
    q = semi(2, 3)
    parts = lambda g: Parts(LogDensity(lambda z: _bent(z), (2,)), q, g)

    def run(gradient, n):
        def step(carry, key):
            out = value_and_grad(key, parts(gradient), ELBO(), plans.IID(), Batch(), carry, n_samples=8)
            return out.carry, (ravel_pytree(out.grads.family)[0], out.carry.log_step)

        return fast(lambda k: jax.lax.scan(step, gradient.init(None), k))(jr.split(jr.key(0), n))

    gradient = UIVI(n_burn_in=1, n_keep=2, n_leapfrog=3, step_size=2.5)
    carry, (grads, steps) = run(gradient, 300)
    assert np.isfinite(grads).all() and steps[-1] < steps[0]
    assert 0.8 < carry.acceptance < 0.97 and not gradient.findings(carry)
    wild = UIVI(n_burn_in=1, n_keep=1, n_leapfrog=3, step_size=1e200)
    carry, (grads, _) = run(wild, 200)
    assert np.isfinite(grads).all()
    ((level, words),) = wild.findings(carry._replace(acceptance=jnp.zeros(())))
    assert level == 2 and "hardly moved" in words
    assert carry.acceptance < 0.2


# ---- rows -----------------------------------------------------------------------------------------------------------

ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))


def _amortised(hidden=(), **options) -> Any:
    q = Amortised(SemiImplicit(n_noise=2, **SMALL, **options), hidden=hidden)
    return q.bind(spec(1), ROWS, jr.key(1))


def test_with_a_linear_encoder_the_mean_is_one_network_of_row_and_noise():
    family, eps = _amortised(), jnp.array([0.4, -1.1])
    q = family(ROWS[2])
    net = q.conditional.value
    whole = MLP(jr.key(0), 5, (4,), 1, activation="tanh")
    weights = [jnp.concatenate([family.encoder.weights[0], net.weight]), net.tail.weights[0]]
    whole = eqx.tree_at(
        lambda m: (m.weights, m.biases), whole, (weights, [family.encoder.biases[0], net.tail.biases[0]])
    )
    np.testing.assert_allclose(q.given(eps).loc, whole((ROWS[2], eps)), atol=1e-12)


def test_the_networks_are_not_copied_along_the_rows():
    model = LogDensity(lambda z, row: target(z - row[:1]), (1,), local=True)
    q: Any = Bound.make(model, _amortised(), ELBO(), Batch(ROWS)).q
    assert q.context.shape == (6, 4)
    assert q.conditional.value.weight.shape == (2, 4) and q.conditional.value.log_scale.shape == (1,)


def test_a_sharpened_family_is_the_same_one_with_more_mixing_draws():
    few, many = _amortised(n_mixing=2, n_verdict=400), _amortised(n_mixing=2, n_verdict=400).sharpened()
    a, b = few(ROWS[0]), many(ROWS[0])
    assert (a.n_mixing, b.n_mixing) == (2, 400)
    z, eps = b.transform(b.noise(jr.key(1)))
    np.testing.assert_array_equal(a.given(eps[0]).loc, b.given(eps[0]).loc)
    exact = jax.nn.logsumexp(jax.vmap(lambda e: a.given(e).log_prob(z))(eps)) - jnp.log(401.0)
    np.testing.assert_allclose(b.log_ratio((z, eps)), exact, atol=1e-12)  # in chunks
    assert MeanField((2,)).sharpened().facts == MeanField((2,)).facts


def test_a_fit_with_a_latent_per_row_and_uivi():
    model = LogDensity(lambda z, row: target(z) - 0.5 * ((row - z) ** 2).sum(), (1,), local=True)
    q = Amortised(SemiImplicit(n_noise=2, n_mixing=3, n_verdict=50, **SMALL), hidden=())
    fit = jn.fit(model, np.asarray(ROWS), family=q, gradient=UIVI(n_burn_in=1, n_keep=1, n_leapfrog=2), optimizer=0.02,
                 n_steps=400, progress=False)  # fmt: skip
    assert fit.sample(5).shape == (5, 6, 1)
    grid = np.linspace(-4, 4, 2001)
    log_p = np.asarray(jax.vmap(lambda r: jax.vmap(lambda z: model.log_density(z[None], r))(grid))(ROWS))
    evidence = np.log(np.exp(log_p).sum(1) * (grid[1] - grid[0])).sum()
    assert evidence - 0.5 < fit.elbo < evidence + 0.1


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_is_refused():
    normal = LogDensity(target, (2,))
    composition = lambda q, g: Composition(normal, q, ELBO(), g, plans.IID(), 2)
    for explicit in (MeanField((2,)), bound(Particles(2), 2), bound(Hierarchical(), 2)):
        with pytest.raises(IncompatibleComposition, match="mixed over a distribution"):
            check(composition(explicit, UIVI()))
    check(composition(semi(2, 2), UIVI()))
    bits = bound(SemiImplicit(conditional=Amortised(Bernoulli(), hidden=(2,))), 2)
    with pytest.raises(IncompatibleComposition, match="carried by the sample path"):
        check(composition(bits, Pathwise()))
    check(composition(bits, LeaveOneOut()))
    for make in (
        lambda: SemiImplicit(n_mixing=0), lambda: SemiImplicit(n_noise=0), lambda: SemiImplicit(hidden=()),
        lambda: Particles(0), lambda: VariationalGP(0), lambda: VariationalGP(nugget=0.0),
        lambda: Hierarchical(n_auxiliary=0), lambda: UIVI(n_keep=0), lambda: UIVI(step_size=0.0),
        lambda: UIVI("gibbs"),  # pyright: ignore[reportArgumentType]
    ):  # fmt: skip
        with pytest.raises(OptionError, match="instead: "):
            make()
    for make in (
        lambda: SemiImplicit(scale=-1.0),
        lambda: SemiImplicit(mixing=SemiImplicit()),
        lambda: Hierarchical(SemiImplicit()),
        lambda: Mixture((semi(2, 2), semi(2, 2))),
        lambda: semi(2, 2).bind(spec(3), None, jr.key(0)),
        lambda: bound(Particles(2), 2).bind(spec(3), None, jr.key(0)),
        lambda: bound(VariationalGP(2), 2).bind(spec(3), None, jr.key(0)),
        lambda: bound(Hierarchical(), 2).bind(spec(3), None, jr.key(0)),
        lambda: Product({"a": SemiImplicit()}).bind({"a": spec(1)}, None, jr.key(0)),
        lambda: GlobalLocal(SemiImplicit()).bind((spec(1), spec(1)), ROWS, jr.key(0)),
    ):
        with pytest.raises(ModelError, match="instead: "):
            make()
