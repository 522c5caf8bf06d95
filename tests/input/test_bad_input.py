"""Bad input: each with a clear error or verdict, and nothing lost."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jensen as jn
from jensen.fit.rows import as_rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
QUICK = dict(n_steps=60, optimizer=1e-2, progress=False, n_draws=512)


def rows_model(dim: int = 3) -> jn.models.LogDensity:
    row = lambda z, x: -0.5 * ((x - z) ** 2).sum()
    return jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (dim,), log_likelihood=row)


def four_parts(error) -> str:
    text = str(error.value)
    assert ("wrong:" in text or "needs:" in text) and "because:" in text and "instead:" in text, text
    return text


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_not_finite_data_are_located(value, word):
    bad = X.copy()
    bad[3, 1] = value
    with pytest.raises(jn.DataError) as error:
        jn.fit(rows_model(), bad)
    assert word in four_parts(error)
    assert "[3, 1]" in str(error.value)


@pytest.mark.parametrize("empty", [np.zeros((0, 3)), [], {}])
def test_empty_data(empty):
    with pytest.raises(jn.DataError) as error:
        jn.fit(rows_model(), empty)
    assert "no rows" in four_parts(error)


@pytest.mark.parametrize("bad", [np.array([["a", "b"]]), np.array([None, 1], object), [[1, 2], [3]], 3.0])
def test_data_that_are_not_numeric_tables(bad):
    with pytest.raises(jn.DataError) as error:
        jn.fit(rows_model(), bad)
    four_parts(error)


def test_leading_axes_that_differ():
    with pytest.raises(jn.DataError, match="leading axes differ"):
        jn.fit(rows_model(), (X, np.zeros(7)))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int32, np.int64, np.float16, np.float64])
def test_integer_boolean_and_other_arrays_work(dtype):
    fit = jn.fit(rows_model(), (X > 0).astype(dtype), **QUICK)
    assert np.isfinite(fit.elbo)


def test_one_row_and_a_constant_column():
    constant = X.copy()
    constant[:, 2] = 5.0
    for data in (X[:1], constant, constant[:1]):
        fit = jn.fit(rows_model(), data, **QUICK)
        assert np.isfinite(fit.elbo)
        assert isinstance(fit.verdict, jn.Verdict)


def test_wrong_shapes():
    with pytest.raises((jn.ModelError, TypeError, ValueError)):
        jn.fit(rows_model(dim=5), X, **QUICK)
    with pytest.raises(jn.ModelError) as error:
        jn.fit(rows_model(), X, family=jn.families.MeanField((4,)), **QUICK)
    assert "(4,)" in four_parts(error)


def test_log_density_minus_infinity_at_the_start_finds_another():
    """Support x > 1 and a start at 0: another start is found."""
    model = jn.models.LogDensity(lambda z: jnp.where(z[0] > 1.0, -0.5 * ((z - 3) ** 2).sum() * 100, -jnp.inf), (1,))
    fit = jn.fit(model, n_steps=500, progress=False, n_draws=512)
    assert float(fit.family.loc[0]) > 1


def test_log_density_never_finite_is_refused():
    with pytest.raises(jn.ModelError) as error:
        jn.fit(jn.models.LogDensity(lambda z: jnp.nan * z.sum(), (2,)), **QUICK)
    assert "not finite" in four_parts(error)


def test_log_density_that_returns_a_vector():
    with pytest.raises(jn.ModelError) as error:
        jn.fit(jn.models.LogDensity(lambda z: -0.5 * z**2, (3,)), **QUICK)
    assert "(3,)" in four_parts(error)


def test_log_density_that_is_not_differentiable():
    model = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,), differentiable=False)
    with pytest.raises(jn.IncompatibleComposition) as error:
        jn.fit(model, gradient="pathwise", **QUICK)
    assert "LeaveOneOut" in four_parts(error)
    assert np.isfinite(jn.fit(model, **QUICK).elbo)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), {}])
def test_a_model_without_latents(shape):
    if shape == ():
        assert jn.models.LogDensity(lambda z: -0.5 * z**2, ()).latents.shape == ()  # a scalar is one latent
        return
    with pytest.raises(jn.ModelError) as error:
        jn.models.LogDensity(lambda z: 0.0, shape)
    assert "nothing to infer" in four_parts(error)


def test_numpyro_model_without_latents_and_with_duplicated_names():
    def none(x):
        numpyro.sample("x", dist.Normal(0, 1).expand([3]).to_event(1), obs=x[0])

    def twice(x):
        numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("z", dist.Normal(0, 1))

    with pytest.raises(jn.ModelError):
        jn.fit(none, X)
    with pytest.raises(jn.ModelError, match="z"):
        jn.fit(twice, X)


@pytest.mark.parametrize("what", [3, "model", None, np.zeros(3), jn.models.LogDensity, {"a": 1}])
def test_not_a_model(what):
    with pytest.raises(jn.ModelError) as error:
        jn.fit(what, X)
    assert "not a model" in four_parts(error)


@pytest.mark.parametrize("option", ["n_steps", "n_samples", "batch_size", "n_restarts", "n_draws"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "many", True])
def test_counts_must_be_counts(option, value):
    with pytest.raises(jn.OptionError) as error:
        jn.fit(rows_model(), X, **{option: value})
    assert option in four_parts(error)


UNKNOWN = [
    {"optimizer": "fast"},
    {"optimizer": -1.0},
    *({axis: "x"} for axis in ("family", "objective", "gradient", "plan")),
]


@pytest.mark.parametrize("option", UNKNOWN)
def test_unknown_names(option):
    with pytest.raises(jn.OptionError) as error:
        jn.fit(rows_model(), X, **option)
    four_parts(error)


def test_minibatches_of_a_density_without_rows():
    with pytest.raises(jn.IncompatibleComposition) as error:
        jn.fit(jn.models.LogDensity(lambda z, x: -0.5 * ((x - z) ** 2).sum(), (3,)), X, batch_size=10)
    assert "log_likelihood" in four_parts(error)


def test_a_latent_per_row_needs_rows():
    model = jn.models.LogDensity(lambda z, x: -0.5 * ((x - z) ** 2).sum(), (3,), local=True)
    with pytest.raises(jn.ModelError, match="data is None"):
        jn.fit(model)


def test_the_users_fit_is_not_lost_when_it_is_bad():
    """A funnel: the verdict says no, and the fit is there all the same."""
    funnel = lambda z: -0.5 * (z[0] / 3) ** 2 - 0.5 * (z[1:] ** 2).sum() * jnp.exp(-z[0]) - 0.5 * 9 * z[0]
    fit = jn.fit(jn.models.LogDensity(funnel, (10,)), n_steps=2000, progress=False)
    assert fit.verdict != jn.Verdict.RELIABLE
    assert fit.sample(10).shape == (10, 10)
    assert fit.reasons


def test_discrete_q_of_continuous_latents_and_the_reverse():
    def model(x):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("b", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(mu, 1).expand([40, 3]).to_event(2), obs=x)

    families = jn.families
    for site, wrong in (("mu", families.Bernoulli()), ("b", families.MeanField())):
        right = {"mu": families.MeanField(), "b": families.Bernoulli()}
        with pytest.raises(jn.IncompatibleComposition) as error:
            jn.fit(model, X, family=families.Product({**right, site: wrong}), **QUICK)
        assert f"`{site}`" in four_parts(error)
    assert np.isfinite(jn.fit(model, X, **QUICK).elbo)


arrays = st.builds(
    lambda shape, dtype, spoil, seed: _spoiled(shape, dtype, spoil, seed),
    st.tuples(st.integers(0, 6), st.integers(0, 3)),
    st.sampled_from(["bool", "int8", "uint8", "int64", "float32", "float64", "complex64", "U3", "object"]),
    st.sampled_from(["no", "nan", "inf"]),
    st.integers(0, 10),
)


def _spoiled(shape, dtype, spoil, seed):
    a = np.random.default_rng(seed).integers(0, 2, shape)
    a = a.astype(dtype)
    if spoil != "no" and a.size and a.dtype.kind == "f":
        a.flat[seed % a.size] = getattr(np, spoil)
    return a


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(arrays, st.tuples(arrays, arrays), st.dictionaries(st.sampled_from("ab"), arrays, max_size=2)))
def test_any_table_is_taken_or_refused_clearly(data):
    """Whatever the table: finite JAX rows with one leading axis, or a DataError with four parts."""
    try:
        rows = as_rows(data)
    except jn.DataError as error:
        assert "wrong:" in str(error) and "instead:" in str(error)
        return
    leaves = list(rows.values()) if isinstance(rows, dict) else list(rows) if isinstance(rows, tuple) else [rows]
    assert len({a.shape[0] for a in leaves}) == 1
    assert all(bool(jnp.isfinite(a.astype(jnp.float32)).all()) for a in leaves)


FAMILIES = ["mean-field", "full-rank", "low-rank", "bernoulli", "categorical", "amortised", "product", "global-local"]
OBJECTIVES = ["elbo", "iwae", "renyi", "cubo"]
GRADIENTS = ["pathwise", "doubly-reparameterised", "score-function", "leave-one-out", "enumerate"]
PLANS = ["iid", "antithetic", "stratified", "quasi-monte-carlo", "common-random-numbers"]
or_none = lambda choices: st.sampled_from([None, *choices])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    or_none(FAMILIES),
    or_none(OBJECTIVES),
    or_none(GRADIENTS),
    or_none(PLANS),
    or_none([1, 2]),
    or_none([7]),
    st.sampled_from([0.01, "adam"]),
)
def test_any_combination_fits_or_is_refused_clearly(
    family, objective, gradient, plan, n_samples, batch_size, optimizer
):
    """No combination of options ends in anything but a fit or an error of the library."""
    optimizer = optax.adam(0.01) if optimizer == "adam" else optimizer
    options = dict(
        family=family, objective=objective, gradient=gradient, plan=plan, n_samples=n_samples, batch_size=batch_size
    )
    try:
        fit = jn.fit(rows_model(), X, n_steps=10, progress=False, optimizer=optimizer, n_draws=512, **options)
    except jn.JensenError as error:
        assert "because:" in str(error) and "instead:" in str(error)
    else:
        assert isinstance(fit.verdict, jn.Verdict)
        assert all(np.isfinite(np.asarray(a)).all() for a in jax.tree.leaves(fit.family) if hasattr(a, "dtype"))
