"""Flows: the identity at the start, an inverse that is one, a log determinant that is that of the Jacobian."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from jensen import ModelError, OptionError
from jensen.cell_models import generic
from jensen.families import NICE, Amortised, FullRank, InverseAutoregressive, MaskedAutoregressive, RealNVP, Spline
from jensen.families.bijections import _skeleton
from jensen.families.triangular import solve_lower

FLOWS = {c.__name__: c for c in (RealNVP, NICE, Spline, InverseAutoregressive, MaskedAutoregressive)}
SHAPE = {"a": (2,), "b": (), "c": (1, 2)}
CHOLESKY = np.tril(0.3 * np.sin(np.arange(25.0)).reshape(5, 5), -1) + np.diag([0.5, 1.0, 2.0, 0.1, 3.0])
LOC = {"a": np.array([1.0, -2.0]), "b": np.array(0.5), "c": np.array([[0.0, 4.0]])}


@pytest.fixture(params=FLOWS, scope="module")
def flow(request):
    return FLOWS[request.param]


def test_the_start_is_the_gaussian(flow):
    """In law and draw by draw; and in single precision."""
    for dtype in (jnp.float64, jnp.float32):
        with jax.enable_x64(dtype == jnp.float64):
            q = flow(SHAPE, n_layers=2, width=5, loc=LOC, cholesky=CHOLESKY)
            eps = jr.normal(jr.key(0), (20, 5))
            draws = jax.jit(jax.vmap(lambda e, q=q: q.base.layout.ravel(q.transform(e))))(eps)
            assert {a.dtype for a in jax.tree.leaves(q)} == {draws.dtype} == {jnp.dtype(dtype)}
            tolerance = 1e-12 if dtype == jnp.float64 else 1e-4
            wanted = q.base.layout.ravel(LOC) + eps @ CHOLESKY.T
            np.testing.assert_allclose(draws, wanted, rtol=tolerance, atol=tolerance)
            normal = jax.scipy.stats.multivariate_normal
            log_q = normal.logpdf(draws, q.base.layout.ravel(LOC), CHOLESKY @ CHOLESKY.T)
            own = jax.jit(jax.vmap(lambda z, q=q: q.log_prob(q.base.layout.unravel(z))))(draws)
            np.testing.assert_allclose(own, log_q, rtol=10 * tolerance, atol=10 * tolerance)


def test_round_trip_and_jacobian(flow):
    q = generic(flow(SHAPE, n_layers=3, width=5, scale=0.7))
    ravel = q.base.layout.ravel

    @jax.jit
    @jax.vmap
    def at(eps):
        draw, log_q = q.transform_and_log_ratio(eps)
        slope = jax.jacobian(lambda e: ravel(q.transform(e)))(eps)
        return ravel(draw), log_q, slope, q.noise_of(draw), q.log_prob(draw)

    eps = 2.0 * jr.normal(jr.key(1), (8, 5))
    draws, log_q, slope, back, own = at(eps)
    np.testing.assert_allclose(back, eps, atol=1e-10)
    log_det = np.linalg.slogdet(slope)[1]
    np.testing.assert_allclose(log_q, -0.5 * (eps**2 + np.log(2 * np.pi)).sum(1) - log_det, atol=1e-10)
    np.testing.assert_allclose(own, log_q, atol=1e-10)
    gaussian = jax.vmap(lambda e: ravel(q.base.transform(e)))(eps)
    assert np.abs(draws - gaussian).max() > 0.05  # it is no Gaussian any more


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_every_coordinate_is_moved_by_the_others(dim):
    """The Jacobian of two pairs of couplings has no zero."""
    q = generic(RealNVP((dim,), n_layers=4, width=5, diagonal=True))
    assert (jnp.abs(jax.jit(jax.jacobian(lambda e: q.transform(e)))(jnp.linspace(-1, 1, dim))) > 1e-8).all()


def test_the_density_of_a_spline_is_continuous_at_the_ends_of_its_interval():
    """Else a path gradient would be biased."""
    q = generic(Spline((2,), n_layers=2, width=5, interval=2.0))
    log_q = jax.jit(lambda e: q.transform_and_log_ratio(jnp.array([0.3, e]))[1])
    for end in (-2.0, 2.0):
        assert abs(log_q(end + 1e-9) - log_q(end - 1e-9)) < 1e-6


def test_first_use_may_be_inside_a_trace():
    """Nothing traced is left in the cache of what FlowJAX needs."""
    q = generic(RealNVP((2,), n_layers=3, width=7))
    _skeleton.cache_clear()
    inside = jax.jit(lambda e: q.transform(e))(jnp.ones(2))
    np.testing.assert_allclose(q.transform(jnp.ones(2)), inside, atol=1e-12)


def test_amortised():
    spec = jax.ShapeDtypeStruct((3,), jnp.float64)
    family = Amortised(RealNVP(n_layers=2, width=3), hidden=(4,)).bind(spec, jnp.ones((6, 2)), jr.key(0))
    q = family(jnp.array([0.3, -1.0]))
    draw, log_q = q.transform_and_log_ratio(jnp.array([0.1, 0.5, -0.7]))
    np.testing.assert_allclose(q.log_prob(draw), log_q, atol=1e-10)


def test_refusals(flow):
    name = flow.__name__
    with pytest.raises(
        ModelError, match=f"`{name}` for latents of shape \\(1,\\)(.|\n)*1 coordinate(.|\n)*instead: Mix"
    ):
        flow().bind(jax.ShapeDtypeStruct((1,), jnp.float64), None, jr.key(0))
    with pytest.raises(ModelError, match="the shapes differ"):
        flow((2,), n_layers=1, width=2).bind(jax.ShapeDtypeStruct((3,), jnp.float64), None, jr.key(0))
    with pytest.raises(ModelError, match="not a Cholesky factor"):
        flow((2,), cholesky=jnp.ones((2, 2)))
    with pytest.raises(ModelError, match="diagonal=True"):
        flow((2,), cholesky=jnp.eye(2), diagonal=True)
    with pytest.raises(OptionError, match="n_layers=0"):
        flow(n_layers=0)
    with pytest.raises(OptionError, match="activation"):
        flow(activation="sine")
    with pytest.raises(ModelError, match="not positive"):
        flow(scale=-1.0)


def test_spline_options_and_a_sized_gaussian():
    with pytest.raises(OptionError, match="knots=1"):
        Spline(knots=1)
    assert RealNVP(cholesky=jnp.eye(3)).base.layout == FullRank((3,)).layout


def test_triangular_systems():
    """Against LAPACK's, with derivatives in both arguments."""
    lower = jnp.tril(jr.normal(jr.key(2), (4, 4))) + 3 * jnp.eye(4)
    rhs = jr.normal(jr.key(3), (4,))
    lapack = lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True)
    np.testing.assert_allclose(solve_lower(lower, rhs), lapack(lower, rhs), atol=1e-12)
    slope = lambda f: jax.jacrev(lambda a, b: f(jnp.tril(a), b), (0, 1))(lower, rhs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), slope(solve_lower), slope(lapack))
