"""Copulas, the maps of a standard normal they are made of, and structured q."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st

from jensen.cell_models import generic
from jensen.errors import ModelError, OptionError
from jensen.facts import Fact
from jensen.families import Autoregressive, Bernoulli, GaussianCopula, MeanField, SinhArcsinh, Univariate

TWO = {"a": jax.ShapeDtypeStruct((1,), float), "b": jax.ShapeDtypeStruct((2,), float)}
WITH_SCORES = ["Normal", "LogNormal", "Cauchy", "Weibull", "Kumaraswamy", "Gamma", "InverseGamma", "StudentT"]


@pytest.mark.parametrize("name", [*WITH_SCORES, "SinhArcsinh"])
def test_normal_scores(name):
    """To the draw and back; and the map's slope is N(xi) over the density."""
    with jax.enable_x64(True):
        q = generic(SinhArcsinh((2,), scale=0.8) if name == "SinhArcsinh" else Univariate(name, (2,)))
        xi = jnp.linspace(-3.0, 3.0, 14).reshape(7, 2)

        @jax.jit
        def there_and_back(x):
            z, slope = jax.jvp(q.from_normal, (x,), (jnp.ones(2),))
            return q.to_normal(z), q.log_probs(z), slope

        back, log_prob, slope = jax.lax.map(there_and_back, xi)
        np.testing.assert_allclose(back, xi, atol=1e-9)
        np.testing.assert_allclose(log_prob, st.norm.logpdf(xi) - np.log(slope), atol=1e-8)


@pytest.mark.parametrize(("name", "parameter"), [("student-t", "df"), ("gamma", "concentration")])
def test_a_solved_quantile_follows_its_parameters(name, parameter):
    """The implicit derivative against differences of SciPy's quantiles."""
    exact = {"student-t": lambda p: st.t.ppf(st.norm.cdf(0.8), p), "gamma": lambda p: st.gamma.ppf(st.norm.cdf(0.8), p)}
    q = Univariate(name, (1,), **{parameter: 2.5})
    value, slope = jax.jvp(
        lambda raw: _with(q, parameter, raw).from_normal(jnp.array([0.8])), (q.raw[parameter],), (jnp.ones(1),)
    )
    np.testing.assert_allclose(value, exact[name](2.5), rtol=1e-9)
    h = 1e-5
    grown = lambda s: float(_with(q, parameter, q.raw[parameter] + s).parameters[parameter][0])
    difference = (exact[name](grown(h)) - exact[name](grown(-h))) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def _with(q, name, raw):
    return eqx.tree_at(lambda q: q.raw[name], q, raw)


def test_a_copula_of_normals_is_a_full_rank_gaussian():
    q = generic(GaussianCopula("normal").bind(jax.ShapeDtypeStruct((3,), float), None, jr.key(0)))
    p, root = q.laws[0].parameters, q.cholesky()
    np.testing.assert_allclose(jnp.diagonal(root @ root.T), 1, atol=1e-12)
    covariance = (p["scale"][:, None] * root) @ (p["scale"][:, None] * root).T
    twin = st.multivariate_normal(np.asarray(p["loc"]), np.asarray(covariance))
    z = jax.vmap(q.sample)(jr.split(jr.key(1), 20))
    np.testing.assert_allclose(jax.vmap(q.log_prob)(z), twin.logpdf(np.asarray(z)), atol=1e-10)
    np.testing.assert_allclose(q.entropy(), twin.entropy(), atol=1e-10)


def test_marginals_keep_their_law():
    """Kolmogorov-Smirnov at level 1e-4 for each of three coordinates; the wrong law fails."""
    q = generic(
        GaussianCopula({"a": Univariate("gamma", concentration=2.0), "b": "student-t"}).bind(TWO, None, jr.key(0))
    )
    z = jax.jit(jax.vmap(lambda e: q.transform(e)))(q.noise(jr.key(2), (2000,)))
    gamma, student = (law.parameters for law in q.laws)
    law = st.gamma(float(gamma["concentration"][0]), scale=1 / float(gamma["rate"][0]))
    assert st.kstest(np.asarray(z["a"][:, 0]), law.cdf).pvalue > 1e-4
    assert st.kstest(np.asarray(z["a"][:, 0]), st.norm(law.mean(), law.std()).cdf).pvalue < 1e-8
    for i in range(2):
        law = st.t(*(float(student[k][i]) for k in ("df", "loc", "scale")))
        assert st.kstest(np.asarray(z["b"][:, i]), law.cdf).pvalue > 1e-4
    assert Fact.ENTROPY in q.facts and Fact.MOMENTS not in q.facts


def test_what_a_copula_refuses():
    for wrong in ("poisson", "beta", "dirichlet", "von-mises", MeanField()):
        with pytest.raises(OptionError, match="CDF"):
            GaussianCopula(wrong)
    with pytest.raises(ModelError, match="sites"):
        GaussianCopula({"a": "normal"}).bind(TWO, None, jr.key(0))


# ---- structured -----------------------------------------------------------------------------------------------------


def test_a_linear_chain_of_normals_with_constant_scales_is_a_gaussian():
    """With nets that move means only: z_b = m + A z_a + s e."""
    q = generic(Autoregressive(("a", "b")).bind(TWO, None, jr.key(0)))
    net = q.nets.value[1]
    still = net.weights[0].at[:, 2:].set(0.0)  # parameters of b: two means, two log sds
    q = eqx.tree_at(lambda q: q.nets.value[1].weights[0], q, still)
    slope, shift, log_sd = still[0, :2], net.biases[0][:2], net.biases[0][2:]
    a, b = q.laws
    variance = jnp.exp(2 * a.log_scale[0])
    cross = variance * slope
    within = variance * jnp.outer(slope, slope) + jnp.diag(jnp.exp(2 * (b.log_scale + log_sd)))
    covariance = np.block([[np.array([[variance]]), cross[None]], [cross[:, None], within]])
    mean = np.concatenate([a.loc, b.loc + shift + slope * a.loc[0]])
    z = jax.vmap(q.sample)(jr.split(jr.key(1), 20))
    twin = st.multivariate_normal(mean, covariance).logpdf(np.concatenate([z["a"], z["b"]], 1))
    np.testing.assert_allclose(jax.vmap(q.log_prob)(z), twin, atol=1e-9)


def test_it_starts_as_a_product_and_sums_its_factors():
    q = Autoregressive(("b", "a"), reads={"a": ()}).bind(TWO, None, jr.key(0))
    assert q.nets.value == (None, None)
    q = generic(Autoregressive(("b", "a"), hidden=(3,)).bind(TWO, None, jr.key(0)))
    draw = q.sample(jr.key(1))
    factors = q.log_factors(draw)
    assert [sites for sites, _ in factors] == [("b",), ("b", "a")]
    np.testing.assert_allclose(sum(v for _, v in factors), q.log_prob(draw), atol=1e-12)


def test_discrete_sites_are_enumerated():
    q = generic(Autoregressive({"a": Bernoulli(), "b": Bernoulli()}).bind(TWO, None, jr.key(0)))
    states = q.support()
    assert len(states["a"]) == 8
    np.testing.assert_allclose(jnp.exp(jax.vmap(q.log_prob)(states)).sum(), 1, atol=1e-12)


def test_a_funnel_is_in_the_family():
    """log N(tau; 0, s) + log N(theta; 0, e^tau) is q itself for the right parameters: here the Gaussian given tau."""
    spec = {"tau": jax.ShapeDtypeStruct((), float), "theta": jax.ShapeDtypeStruct((2,), float)}
    q = Autoregressive(("tau", "theta")).bind(spec, None, jr.key(0))
    weight = jnp.array([[0.0, 0.0, 1.0, 1.0]])
    at = lambda q: (q.laws[0].log_scale, q.laws[1].log_scale, q.nets.value[1].weights[0])
    q = eqx.tree_at(at, q, (jnp.log(jnp.array([1.5])), jnp.zeros(2), weight))
    z = {"tau": jnp.array(0.7), "theta": jnp.array([0.3, -2.0])}
    exact = st.norm(0, 1.5).logpdf(0.7) + st.norm(0, np.exp(0.7)).logpdf(np.asarray(z["theta"])).sum()
    np.testing.assert_allclose(q.log_prob(z), exact, atol=1e-12)


def test_what_a_chain_refuses():
    with pytest.raises(ModelError, match="before"):
        Autoregressive(("a", "b"), reads={"a": ("b",)})
    with pytest.raises(ModelError, match="named"):
        Autoregressive().bind(jax.ShapeDtypeStruct((2,), float), None, jr.key(0))
