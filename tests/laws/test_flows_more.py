"""Flows of few parameters, flows at a context, and the continuous flow."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import norm

import jensen as jn
from jensen import ModelError, OptionError
from jensen.batch import Batch
from jensen.cell_models import Affine, generic
from jensen.families import (
    Amortised,
    ContinuousFlow,
    Householder,
    InverseAutoregressive,
    MeanField,
    Planar,
    Radial,
    RealNVP,
    Sylvester,
)
from jensen.families.composite import solve_tanh
from jensen.gradients import Pathwise
from jensen.gradients.base import Bound
from jensen.models import LatentVariable, LogDensity
from jensen.objectives import ELBO, IWAE
from jensen.tree import split_shared, split_trainable

FLOWS = {
    "Planar": (Planar, {"n_layers": 3}),
    "Radial": (Radial, {"n_layers": 3}),
    "Sylvester, orthogonal": (Sylvester, {"n_layers": 2, "rank": 2}),
    "Sylvester, householder": (Sylvester, {"n_layers": 2, "kind": "householder", "n_reflections": 2}),
    "Sylvester, triangular": (Sylvester, {"n_layers": 2, "kind": "triangular"}),
    "ContinuousFlow": (ContinuousFlow, {"width": 5, "depth": 1, "rtol": 1e-9, "atol": 1e-9}),
}
CONTEXT = {
    "RealNVP": RealNVP(n_layers=2, width=4, context=2),
    "InverseAutoregressive": InverseAutoregressive(n_layers=2, width=4, context=2),
    "ContinuousFlow": ContinuousFlow(width=4, depth=1, n_steps=8, context=2),
}
PER_ROW = {
    "Planar": (Planar(n_layers=2, diagonal=True), 6 + 2 * (2 * 3 + 1)),
    "Householder": (Householder(n_layers=2), 6 + 2 * 3),
}
SHAPE = {"a": (2,), "b": ()}
LOC = {"a": np.array([1.0, -2.0]), "b": np.array(0.5)}
CHOLESKY = np.array([[0.5, 0, 0], [0.1, 2.0, 0], [-0.3, 0.2, 1.0]])
SPEC = jax.ShapeDtypeStruct((3,), jnp.float64)
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiling is what is slow here


@functools.partial(eqx.filter_jit, compiler_options={"xla_backend_optimization_level": 0})
@functools.partial(eqx.filter_vmap, in_axes=(None, 0))
def everything(q, eps):
    """Draw, log q along the path, log q from the Jacobian, log q of the draw, and the draw of the draw's noise."""
    draw, log_q = q.transform_and_log_ratio(eps)
    flat = lambda e: ravel_pytree(q.transform(e))[0]
    normal = -0.5 * (eps**2 + jnp.log(2 * jnp.pi)).sum()
    again = draw if isinstance(q, Householder) else q.transform(q.noise_of(draw))
    slope = jax.jacrev(flat)(eps)
    return flat(eps), log_q, normal - jnp.linalg.slogdet(slope)[1], q.log_prob(draw), ravel_pytree(again)[0]


def check(q, eps, tolerance):
    """The draws, of which log q is right."""
    draws, path, jacobian, own, again = everything(q, eps)
    np.testing.assert_allclose(path, jacobian, atol=tolerance)
    np.testing.assert_allclose(own, path, atol=tolerance)
    np.testing.assert_allclose(again, draws, atol=tolerance)
    return draws


@pytest.mark.parametrize("name", FLOWS)
def test_start_round_trip_and_jacobian(name):
    cls, options = FLOWS[name]
    start = cls(SHAPE, loc=LOC, cholesky=CHOLESKY, **options)
    q, eps = generic(start), 2 * jr.normal(jr.key(0), (12, 3))
    tolerance = 1e-7 if cls is ContinuousFlow else 1e-10
    gaussian = ravel_pytree(LOC)[0] + eps @ CHOLESKY.T
    np.testing.assert_allclose(check(start, eps, tolerance), gaussian, atol=1e-12)
    draws = check(q, eps, tolerance)
    assert np.abs(draws - jax.vmap(lambda e: ravel_pytree(q.base.transform(e))[0])(eps)).max() > 0.05
    if cls is not ContinuousFlow:  # any parameters make an invertible map: also where w.u is far below -1
        for size in (5.0, -5.0):
            check(eqx.tree_at(lambda q: q.arrays, q, jax.tree.map(lambda a, s=size: s * a, q.arrays)), eps, 1e-4)


def test_single_precision():
    """The scalar equation of a planar flow, and what is made of it."""
    with jax.enable_x64(False):
        q, eps = generic(Planar(SHAPE, n_layers=3)), jr.normal(jr.key(1), (20, 3))
        assert check(q, eps, 1e-4).dtype == jnp.float32


def test_householder_is_a_gaussian():
    """N(mu, A A^T) with A = H diag(sigma), H orthogonal."""
    q = generic(Householder((3,), n_layers=3, loc=np.ones(3), scale=0.5))
    turned = np.stack([q.layout.ravel(q.transform(e)) - q.loc for e in np.eye(3)], 1)
    draw = jnp.array([0.3, -1.0, 2.0])
    log_q = jax.scipy.stats.multivariate_normal.logpdf(draw, q.loc, turned @ turned.T)
    np.testing.assert_allclose(q.log_prob(draw), log_q, atol=1e-12)
    np.testing.assert_allclose(turned.T @ turned, np.diag(np.exp(2 * q.log_scale)), atol=1e-12)


def test_the_scalar_equation():
    """Solved to rounding; its first and second derivatives against central differences."""
    points = np.array([[1.5, -0.6, 30.0, 1.0], [0.4, 1.0, -0.03, 2.0], [1.5, 0.4, -1.0, 2.0], [2.0, 0.3, -8.0, 0.1]])
    solve = lambda p: solve_tanh(*p)
    value, slope = jit(jax.vmap(solve)), jit(jax.vmap(jax.grad(solve)))
    r, k, s, t = points.T
    a = value(points)
    np.testing.assert_allclose(a + r * np.tanh(k * a + s), t, atol=1e-13)
    second, h = jit(jax.vmap(jax.jacfwd(jax.grad(solve))))(points), 1e-5
    for i, step in enumerate(h * np.eye(4)):
        np.testing.assert_allclose(
            slope(points)[:, i], (value(points + step) - value(points - step)) / (2 * h), atol=1e-8
        )
        np.testing.assert_allclose(second[:, i], (slope(points + step) - slope(points - step)) / (2 * h), atol=1e-8)


# ---- under an encoder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PER_ROW)
def test_an_encoder_computes_all_of_a_small_flow(name):
    flow, n_outputs = PER_ROW[name]
    family = Amortised(flow, hidden=(4,)).bind(SPEC, jnp.ones((6, 2)), jr.key(0))
    assert family.encoder.biases[-1].size == n_outputs
    _check_rows(family)


@pytest.mark.parametrize("name", CONTEXT)
def test_an_encoder_computes_the_context_of_shared_networks(name):
    family = Amortised(CONTEXT[name], hidden=(4,)).bind(SPEC, jnp.ones((6, 2)), jr.key(0))
    assert family.encoder.biases[-1].size == 3 + 3 + 2  # mu, log sigma, context
    assert jax.tree.leaves(split_trainable(family.shared)[0])
    assert jn.facts.Fact.OWN_PARAMETERS not in family.facts
    _check_rows(generic(family))


def _check_rows(family):
    """Each row has its own density, and it is the right one."""
    eps, standard = jr.normal(jr.key(2), (3, 3)), []
    for row in (jnp.array([0.3, -1.0]), jnp.array([2.0, 0.5])):
        q = family(row)
        draws = check(q, eps, 1e-5 if isinstance(q, ContinuousFlow) else 1e-10)
        if not isinstance(q, Householder):
            standard.append((draws - q.base.loc) * jnp.exp(-q.base.log_scale))
    assert not standard or np.abs(standard[0] - standard[1]).max() > 1e-4  # not by mu and L alone


def test_a_batch_has_the_gradient_of_its_rows():
    """One flat map over the cells, with networks shared by them, against a loop over rows and draws."""
    model = LatentVariable(MeanField((3,), scale=1.0), Affine(jnp.ones((3, 2)), jnp.zeros(2)), "gaussian", shape=(2,))
    rows, flow = jnp.array([[0.3, -1.0], [2.0, 0.5]]), InverseAutoregressive(n_layers=2, width=4, context=2)
    family = generic(Amortised(flow, hidden=(3,)).bind(SPEC, rows, jr.key(0)))
    noise = jr.normal(jr.key(3), (2, 2, 3))
    params, rest = split_trainable(family)

    def batched(p):
        bound = Bound.make(model, eqx.combine(p, rest), ELBO(), Batch(rows, None))
        return Pathwise().terms(noise, bound, ()).value.sum()

    def looped(p):
        total = 0.0
        for i, row in enumerate(rows):
            q = eqx.combine(p, rest)(row)
            for e in noise[:, i]:
                z = q.transform(e)
                total += 0.5 * (model.log_density(z, row) - q.log_prob(z))
        return total

    one, other = (ravel_pytree(jit(jax.value_and_grad(f))(params))[0] for f in (batched, looped))
    np.testing.assert_allclose(one, other, atol=1e-9)
    nets = split_shared(Bound.make(model, family, ELBO(), Batch(rows, None)).q)[1]
    shapes = lambda tree: [a.shape for a in jax.tree.leaves(tree)]
    assert shapes(split_trainable(nets)[0]) == shapes(split_trainable(family.shared)[0])  # never copied along the rows


# ---- the continuous flow ------------------------------------------------------------------------------------------------


def _hutchinson(**options):
    return generic(ContinuousFlow((2,), width=4, depth=1, n_steps=4, trace="hutchinson", **options))


def test_the_estimated_trace_is_unbiased():
    """log q and its gradient in the field, at one eps. Two-sided z of 31 means of 20,000 probes: level 1e-4 in all. The
    control, a probe of variance 1.1, must fail."""
    q, n = _hutchinson(), 20_000
    params, rest = split_trainable(q)
    eps = jnp.array([0.5, -1.2])
    value = lambda p, v: eqx.combine(p, rest).transform_and_log_estimate({"eps": eps, "probe": v})[1]
    exact = lambda p: eqx.combine(p, rest).transform_and_log_ratio({"eps": eps, "probe": eps})[1]
    flat = lambda out: ravel_pytree(out)[0]
    sample = jax.jit(jax.vmap(lambda v: flat(jax.value_and_grad(value)(params, v))))
    wanted = flat(jax.value_and_grad(exact)(params))
    probes = jr.normal(jr.key(4), (n, 2))

    def worst(draws):
        spread = draws.std(0)
        random = spread > 1e-9
        np.testing.assert_allclose(draws.mean(0)[~random], wanted[~random], atol=1e-9)
        return jnp.abs((draws.mean(0) - wanted) / spread * n**0.5)[random].max()

    limit = norm.isf(0.5e-4 / wanted.size)
    assert worst(sample(probes)) < limit
    assert worst(sample(probes * 1.1**0.5)) > limit


def test_where_the_estimate_is_used():
    """By path gradients of the ELBO; a nonlinear objective and the density of a draw take the exact trace."""
    q = _hutchinson()
    model = LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
    noise = q.noise(jr.key(5), (4,))
    log_w = lambda objective: Pathwise().terms(noise, Bound(model, q, objective, Batch(None, None), ()), ()).value
    draws, exact = jax.vmap(q.transform_and_log_ratio)(noise)
    weights = -0.5 * (draws**2).sum(-1) - exact
    np.testing.assert_allclose(log_w(IWAE()), jax.nn.logsumexp(weights) - np.log(4), atol=1e-12)
    assert abs(log_w(ELBO()) - weights.mean()) > 1e-3
    estimated = jax.vmap(q.transform_and_log_estimate)(noise)[1]
    np.testing.assert_allclose(log_w(ELBO()), (-0.5 * (draws**2).sum(-1) - estimated).mean(), atol=1e-12)


def test_both_adjoints_give_the_gradient():
    gradients = []
    for adjoint in ("direct", "backsolve"):
        flow = ContinuousFlow((2,), width=3, depth=1, rtol=1e-8, atol=1e-8, trace="hutchinson", adjoint=adjoint)
        params, rest = split_trainable(generic(flow))
        noise = flow.noise(jr.key(6))

        def loss(p, rest=rest, noise=noise):
            draw, log_q = eqx.combine(p, rest).transform_and_log_estimate(noise)
            return log_q + (draw**2).sum()

        gradients.append(ravel_pytree(jit(jax.grad(loss))(params))[0])
    np.testing.assert_allclose(*gradients, atol=1e-5)


@functools.partial(eqx.filter_jit, compiler_options={"xla_backend_optimization_level": 0})
@functools.partial(eqx.filter_vmap, in_axes=(None, 0))
def _log_q(q, eps):
    return q.transform_and_log_ratio(eps)[1]


def test_a_solver_that_gives_up_makes_the_draw_nan():
    """Too many steps, or a field that explodes: a NaN, no error; the other draws of the batch are not touched."""
    q = generic(ContinuousFlow((2,), width=4, depth=1, max_steps=6, rtol=1e-9, atol=1e-9))
    log_q = _log_q(q, jnp.array([[0.1, 0.2], [40.0, -70.0], [0.3, -0.1]]))
    np.testing.assert_array_equal(np.isfinite(log_q), [False, True, False])
    explode = eqx.tree_at(lambda q: q.arrays.biases[-1], q, jnp.full(2, jnp.inf))
    assert jnp.isnan(_log_q(explode, jnp.ones((3, 2)))).all()


@pytest.mark.slow
def test_a_fit_survives_steps_that_fail():
    """They are skipped, counted, and the verdict says so."""
    target = LogDensity(lambda z: -0.5 * (z[0] ** 2 + 20 * (z[1] - z[0] ** 2) ** 2), (2,))
    flow = ContinuousFlow(width=8, depth=1, scale=1.0, max_steps=3)
    fit = jn.fit(target, family=flow, n_steps=100, n_samples=4, optimizer=3e-2, seed=0, progress=False)
    assert any("steps were skipped" in reason for reason in fit.reasons), fit.reasons
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(split_trainable(fit.family)[0]))


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Planar, Radial, Householder, Sylvester, ContinuousFlow])
def test_refused_shapes(cls):
    name = cls.__name__
    with pytest.raises(ModelError, match=f"`{name}` for latents of shape \\(1,\\)(.|\n)*1 coordinate(.|\n)*Mixture"):
        cls().bind(jax.ShapeDtypeStruct((1,), jnp.float64), None, jr.key(0))
    with pytest.raises(ModelError, match="the shapes differ"):
        cls((2,)).bind(SPEC, None, jr.key(0))
    with pytest.raises(ModelError, match="not positive"):
        cls(scale=-1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Planar(n_layers=0), r"`Planar\(n_layers=0\)`"),
        (lambda: Radial(n_layers=0), r"`Radial\(n_layers=0\)`"),
        (lambda: Householder(n_layers=0), "n_layers=0"),
        (lambda: Sylvester((3,), rank=4), "3 coordinates(.|\n)*orthonormal columns(.|\n)*rank=3"),
        (lambda: Sylvester((3,), rank=2, kind="triangular"), "reversal(.|\n)*rank=3"),
        (lambda: Sylvester(rank=0), "below 1"),
        (lambda: Sylvester(kind="cubic"), "unknown"),
        (lambda: Sylvester(n_reflections=2), "makes no reflections"),
        (lambda: RealNVP(context=-1), "negative"),
        (lambda: ContinuousFlow(n_steps=0), "n_steps=0"),
        (lambda: ContinuousFlow(rtol=0.0), "rtol=0.0"),
        (lambda: ContinuousFlow(trace="skilling"), "one of"),
        (lambda: ContinuousFlow(adjoint="none"), "one of"),
    ],
)
def test_refused_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()
