"""Log densities in NumPy: the same numbers as the JAX function of the same formula, in every way JAX may call it."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import cholesky

import jensen as jn
from jensen import gradients
from jensen.batch import Batch
from jensen.errors import IncompatibleComposition, ModelError
from jensen.facts import Fact
from jensen.models import BlackBox, LogDensity
from jensen.models.host import surfaced

MEAN, PRECISION = np.array([0.5, -1.0, 2.0]), np.array([[2.0, 0.6, 0.0], [0.6, 1.5, -0.4], [0.0, -0.4, 1.0]])


def fn(z):
    return -0.5 * (z - MEAN) @ PRECISION @ (z - MEAN)


def gradient(z):
    return -PRECISION @ (z - MEAN)


def many(z):
    return -0.5 * np.einsum("ni,ij,nj->n", z - MEAN, PRECISION, z - MEAN)


def many_and_gradient(z):
    return many(z), -(z - MEAN) @ PRECISION


def in_jax(z):
    return -0.5 * (z - MEAN) @ PRECISION @ (z - MEAN)


MADE = {
    "one at a time": lambda: BlackBox(fn, (3,), gradient=gradient),
    "value and gradient": lambda: BlackBox(fn, (3,), value_and_grad=lambda z: (fn(z), gradient(z))),
    "many at once": lambda: BlackBox(many, (3,), vectorized=True, gradient=lambda z: many_and_gradient(z)[1]),
    "many, both": lambda: BlackBox(many, (3,), vectorized=True, value_and_grad=many_and_gradient),
}


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def x64(request):
    with jax.enable_x64(request.param):
        yield request.param


@pytest.mark.parametrize("name", MADE)
def test_equals_the_jax_function(name, x64):
    model, tolerance = MADE[name](), {"rtol": 1e-14 if x64 else 3e-6}
    z = jax.random.normal(jax.random.key(0), (4, 5, 3))
    density = lambda z: model.log_density(z, Batch())
    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_allclose(wrap(density)(z[0, 0]), in_jax(z[0, 0]), **tolerance)
        np.testing.assert_allclose(wrap(jax.vmap(density))(z[0]), jax.vmap(in_jax)(z[0]), **tolerance)
        np.testing.assert_allclose(wrap(jax.grad(density))(z[0, 0]), jax.grad(in_jax)(z[0, 0]), **tolerance)
        nested = wrap(jax.vmap(jax.vmap(jax.value_and_grad(density))))(z)
        for mine, theirs in zip(nested, jax.vmap(jax.vmap(jax.value_and_grad(in_jax)))(z), strict=True):
            assert mine.dtype == theirs.dtype == (jnp.float64 if x64 else jnp.float32)
            np.testing.assert_allclose(mine, theirs, **tolerance)
    assert model.facts == {Fact.EXACT_LOG_WEIGHT, Fact.DIFFERENTIABLE}


def test_sees_writable_float64_arrays(x64):
    seen = []

    def fn(z):
        seen.append((type(z), z.dtype, z.shape))
        z *= 2.0
        return z.sum()

    model = BlackBox(fn, (2,))
    value = jax.jit(jax.vmap(lambda z: model.log_density(z, None)))(jnp.full((3, 2), 1 / 3))
    np.testing.assert_allclose(value, 4 * np.asarray(jnp.asarray(1 / 3)), rtol=1e-7)
    assert seen == [(np.ndarray, np.dtype(float), (2,))] * 4


def test_a_written_argument_does_not_reach_the_gradient():
    def fn(z):
        z[:] = 100.0
        return 0.0

    model = BlackBox(fn, (2,), gradient=lambda z: 2 * z)
    np.testing.assert_allclose(jax.grad(lambda z: model.log_density(z, None))(jnp.array([1.0, 2.0])), [2.0, 4.0])


def test_vectorised_is_one_call_with_a_leading_axis_always():
    shapes = []

    def fn(z):
        shapes.append({k: v.shape for k, v in z.items()})
        return z["a"] + z["b"].sum((1, 2))

    model = BlackBox(fn, {"a": (), "b": (2, 2)}, vectorized=True)
    density = lambda a, b: model.log_density({"a": a, "b": b}, None)
    b = jnp.arange(4.0).reshape(2, 2)
    assert float(density(jnp.array(1.0), b)) == 7.0
    np.testing.assert_allclose(jax.jit(jax.vmap(density, (0, None)))(jnp.arange(3.0), b), [6.0, 7.0, 8.0])
    both = jax.vmap(jax.vmap(density, (None, 0)), (0, None))(jnp.arange(3.0), jnp.stack([b, b]))
    np.testing.assert_allclose(both, np.add.outer(np.arange(3.0), [6.0, 6.0]))
    assert [s["b"][0] for s in shapes] == [3, 1, 3, 6]


@pytest.mark.parametrize("vectorized", [False, True])
def test_data(vectorized):
    y = np.array([1, 2, 4])

    def fn(z, data):
        assert isinstance(data["y"], np.ndarray) and data["y"].dtype.kind == "i" and data["x"].dtype == float
        return -((z[..., :, None] - data["y"] * data["x"]) ** 2).sum((-2, -1))

    model = BlackBox(fn, (1,), vectorized=vectorized)
    rows = {"y": jnp.asarray(y), "x": jnp.ones(3)}
    expected = [-((z - y) ** 2).sum() for z in (0.5, 2.0)]
    z = jnp.array([[0.5], [2.0]])
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda z: model.log_density(z, Batch(rows))))(z), expected, rtol=1e-6)
    fit = jn.fit(model, rows, n_steps=300, optimizer=0.05, n_samples=8, n_draws=500)
    assert abs(fit.sample(2000).mean() - 7 / 3) < 0.3


def test_data_may_be_kept():
    kept = []

    def fn(z, data):
        kept.append(data["y"])
        return z.sum() * 0.0

    model = BlackBox(fn, (1,))
    for n in range(20):
        model.log_density(jnp.zeros(1), Batch({"y": jnp.full(1000, n)}))
    assert [set(y.tolist()) for y in kept] == [{n} for n in range(20)]


ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
from jensen.models import BlackBox
model = BlackBox(lambda z: -(z**2).sum(-1), (4,), vectorized=True)
work = jax.jit(jax.vmap(lambda key: model.log_density(jax.random.normal(key, (4,)), None)))
for i in range(2000):
    work(jax.random.split(jax.random.key(i), 20_000)).block_until_ready()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the platform cannot confine a process to one core")
def test_large_arguments_on_one_core():
    """`jax.pure_callback` waits for ever here: its copy of the arguments queues behind the program that waits for it."""
    run = subprocess.run([sys.executable, "-c", ONE_CORE], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == "done\n"


def test_fit_finds_the_gaussian():
    """q = p is in the family: mean and covariance are those of the density."""
    with jax.enable_x64(True):
        fit = jn.fit(MADE["many, both"](), family="full-rank", seed=1)
        assert str(fit.verdict) == "RELIABLE", fit.reasons
        draws = fit.sample(20_000)
    np.testing.assert_allclose(draws.mean(0), MEAN, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), np.linalg.inv(PRECISION), atol=0.08)
    log_z = 1.5 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1]
    assert abs(fit.elbo - log_z) < 0.01


def test_without_a_gradient():
    model = BlackBox(many, (3,), vectorized=True)
    assert model.facts == {Fact.EXACT_LOG_WEIGHT}
    with pytest.raises(IncompatibleComposition, match="differentiable in z"):
        jn.fit(model, gradient=gradients.Pathwise())
    with pytest.raises(ModelError, match="none was given"):
        jax.grad(lambda z: model.log_density(z, None))(jnp.zeros(3))
    fit = jn.fit(model, family="mean-field", n_samples=32, n_steps=1500, optimizer=0.03, n_draws=500)
    assert fit.options["gradient"] in ("LeaveOneOut", "ScoreFunction")
    np.testing.assert_allclose(fit.sample(4000).mean(0), MEAN, atol=0.2)


def test_the_same_function_is_the_same_key():
    make = lambda: BlackBox(lambda z: -z @ z, (2,), gradient=lambda z: -2 * z)
    one, two = make(), make()
    one, two = (m.traced([]) for m in (one, two))  # as they are compiled: called back by a number
    assert jax.tree.structure(one) == jax.tree.structure(two) and len(jax.tree.leaves(one)) == 1
    assert jax.tree.structure(one) != jax.tree.structure(BlackBox(lambda z: -2 * z @ z, (2,)).traced([]))


def outside(z):
    return -np.log(np.linalg.det(cholesky(np.diag(1 + z))))  # LinAlgError, a ValueError, where z <= -1


@pytest.mark.parametrize("gradient", [None, np.zeros_like])
def test_outside_of_the_domain_is_nan(gradient):
    model = BlackBox(outside, (2,), gradient=gradient)
    density = jax.jit(jax.vmap(lambda z: model.log_density(z, None)))
    z = jnp.array([[0.0, 0.0], [-2.0, 0.0], [np.nan, 0.0]])
    np.testing.assert_array_equal(np.isnan(density(z)), [False, True, True])
    if gradient is not None:
        slope = jax.vmap(jax.grad(lambda z: model.log_density(z, None)))(z)
        np.testing.assert_array_equal(np.isnan(slope).all(1), [False, True, True])


def test_nan_and_infinities_pass():
    model = BlackBox(lambda z: {0.0: np.nan, 1.0: np.inf, -1.0: -np.inf}[z[0]], (1,))
    values = jax.vmap(lambda z: model.log_density(z, None))(jnp.array([[0.0], [1.0], [-1.0]]))
    np.testing.assert_array_equal(values, [np.nan, np.inf, -np.inf])


def raises_later(z):
    if z[0] != 0:
        raise KeyError("a bug")
    return 0.0


def test_an_exception_is_a_model_error_with_its_cause():
    model = BlackBox(raises_later, (1,))
    with pytest.raises(ModelError, match=r"KeyError: 'a bug'.*test_black_box"):
        model.log_density(jnp.ones(1), None)
    with pytest.raises(ModelError, match="KeyError: 'a bug'"), surfaced():
        jax.block_until_ready(jax.jit(lambda z: model.log_density(z, None))(jnp.ones(1)))


def test_data_that_do_not_fit_are_a_model_error():
    """Such a function is not tried before it has data; NumPy's ValueError is then a bug, not a point outside."""
    model = BlackBox(lambda z, y: -((z - y) ** 2).sum(), (2,))
    with pytest.raises(ModelError, match="could not be broadcast"):
        model.log_density(jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(ModelError, match="returned shape"):
        BlackBox(lambda z, y: z - y, (2,)).log_density(jnp.zeros(2), jnp.zeros(2))


def test_a_shape_that_changes_is_a_model_error():
    model = BlackBox(lambda z: 0.0 if z[0] == 0 else z, (2,))
    with pytest.raises(ModelError, match=r"returned shape \(2,\)"):
        model.log_density(jnp.ones(2), None)


def raising(z):
    raise RuntimeError("no solver")


@pytest.mark.parametrize(
    ("match", "make"),
    [
        (r"returned shape \(3,\)", lambda: BlackBox(lambda z: z, (3,))),
        (r"returned shape \(\)", lambda: BlackBox(lambda z: z.sum(), (3,), vectorized=True)),
        (r"gradient returned shape \(2,\)", lambda: BlackBox(fn, (3,), gradient=lambda z: z[:2])),
        ("the gradient is the tree", lambda: BlackBox(fn, (3,), gradient=lambda z: {"z": z})),
        ("value_and_grad returned a float", lambda: BlackBox(fn, (3,), value_and_grad=fn)),
        ("NoneType", lambda: BlackBox(lambda z: None, (3,))),
        ("complex128", lambda: BlackBox(lambda z: 1j * z[0], (3,))),
        ("object", lambda: BlackBox(lambda z: [[1], [1, 2]], (3,))),
        (r"LogDensity\(fn, shape\)", lambda: BlackBox(lambda z: jnp.sum(z), (3,))),
        ("fn raised at z = 0.*\n.*no solver", lambda: BlackBox(raising, (3,))),
        ("gradient raised at z = 0", lambda: BlackBox(fn, (3,), gradient=raising)),
        ("fn is a int", lambda: BlackBox(3, (3,))),
        ("gradient is a float", lambda: BlackBox(fn, (3,), gradient=1.0)),
        ("both gradient", lambda: BlackBox(fn, (3,), gradient=gradient, value_and_grad=fn)),
        ("no coordinates", lambda: BlackBox(fn, {})),
    ],
)
def test_refused(match, make):
    with pytest.raises(ModelError, match=match) as error:
        make()
    assert all(f"{part}:" in str(error.value) for part in ("wrong", "because", "instead"))


def test_mapping_the_data_of_a_vectorised_function_is_refused():
    model = BlackBox(lambda z, y: z.sum(1), (1,), vectorized=True)
    with pytest.raises(ModelError, match="vectorized=False"), surfaced():
        jax.block_until_ready(jax.vmap(lambda y: model.log_density(jnp.ones(1), y))(jnp.arange(3.0)))


def test_save_and_load(tmp_path):
    model = MADE["many, both"]()
    fit = jn.fit(model, family="mean-field", n_steps=20, optimizer=0.05, n_draws=100)
    fit.save(tmp_path / "run")
    np.testing.assert_array_equal(jn.load(tmp_path / "run").sample(5), fit.sample(5))
    assert LogDensity(in_jax, (3,)).latents == model.latents


def test_double_precision_whatever_the_thread():
    """XLA may call back from a thread in which x64 is off: nothing is rounded on the way there and back."""
    exact = np.array([1 / 3, -2 / 7])

    def fn(z, data):
        assert (z == exact).all() and data["x"] == 1 / 9 and data["n"] == 2**40
        return z[0] / 7

    model = BlackBox(fn, (2,))

    def run(z):
        data = {"x": jnp.asarray(1 / 9), "n": jnp.asarray(2**40)}
        work = jnp.linalg.inv(jnp.eye(200) + z[0] * 0.01)  # enough of it to leave the calling thread
        value = jax.lax.fori_loop(0, 20, lambda i, v: model.log_density(z, Batch(data)) + 0 * v + 0 * work[0, 0], 0.0)
        return value, work

    with jax.enable_x64(True):
        jitted = jax.jit(run)
        for _ in range(20):
            assert float(jitted(jnp.asarray(exact))[0]) == exact[0] / 7
