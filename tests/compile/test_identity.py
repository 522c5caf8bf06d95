"""A function is what its trace says: new data in an old function, old data in a new one, and the caches between them."""

import gc
import os
import resource
import weakref

import jax
import jax.numpy as jnp
import kinds
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from kinds import KINDS, data, mean_of, model_of

import jensen as jn
from jensen.batch import Batch
from jensen.errors import CheckpointError
from jensen.program import Program

STEPS = {"family": "mean-field", "n_steps": 400, "optimizer": 0.1, "n_draws": 1024}
WAYS = {"ladder": {}, "gradient": STEPS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_is_that_of_the_data_as_they_are(kind, way, compilations):
    """The same object, whose data are changed between fits; a model made once, and made anew."""
    fn, change = KINDS[kind]()
    change(data(3.0))
    model = model_of(fn)
    first = jn.fit(model, **WAYS[way])
    assert abs(mean_of(first) - 3.0) < 0.2
    change(data(9.0, seed=1))
    (again, made), n = compilations(lambda: (jn.fit(model, **WAYS[way]), jn.fit(model_of(fn), seed=1, **WAYS[way])))
    assert abs(mean_of(again) - 9.0) < 0.2 and abs(mean_of(made) - 9.0) < 0.2
    assert n == 0, f"{n} programs were compiled for new data"
    assert abs(mean_of(first) - 3.0) < 0.2  # a fit is not changed by what comes after it


@pytest.mark.parametrize("kind", ["def, global array", "lambda, closure", "numpyro", "callable object"])
def test_what_follows_a_fit_speaks_of_its_own_data(kind):
    """log p of a fit's draws, long after the data have changed."""
    fn, change = KINDS[kind]()
    change(data(3.0))
    fit = jn.fit(model_of(fn))
    z = fit.unconstrained(5)
    with jax.enable_x64(True):
        before = np.asarray(jax.vmap(lambda z: fit.model.log_density(z, Batch()))(z))
        change(data(9.0))
        after = np.asarray(jax.vmap(lambda z: fit.model.log_density(z, Batch()))(z))
    np.testing.assert_array_equal(before, after)


def test_predictions_are_those_of_the_fitted_data():
    for mean in (3.0, 9.0):
        kinds.DATA = data(mean)
        fit = jn.fit(jn.from_numpyro(kinds.numpyro_model))
        assert abs(fit.predict(400)["y"].mean() - mean) < 0.3
        assert abs(np.asarray(fit.loo().pointwise).sum() - expected_loo(kinds.DATA)) < 0.5


def expected_loo(y):
    """log p(y_i | rest) of a normal mean with a flat prior: N(mean of the rest, 1 + 1 / (n - 1))."""
    n = len(y)
    rest, var = (y.sum() - y) / (n - 1), 1 + 1 / (n - 1)
    return float((-0.5 * (y - rest) ** 2 / var - 0.5 * np.log(2 * np.pi * var)).sum())


def test_changed_code_is_another_function():
    """A cell that is run again with other code, of the same name and the same data."""
    y, means = data(3.0), []
    for body in ("((z - y) ** 2).sum()", "((z - 2 * y) ** 2).sum()", "((z + y) ** 2).sum()"):
        cell: dict = {"y": y}
        exec(f"def logp(z):\n    return -0.5 * {body}", cell)
        means.append(mean_of(jn.fit(jn.models.LogDensity(cell["logp"], (1,)))))
    np.testing.assert_allclose(means, [3.0, 6.0, -3.0], atol=0.2)


@pytest.mark.parametrize("way", WAYS)
def test_a_captured_number_is_data(way, compilations):
    """Remade lambdas: right, and from the second on nothing is compiled, 1 and 0 and 2 included."""
    counts = []
    for k in (7.25, 3.5, 0.0, 2.0, 1.0):
        fit, n = compilations(lambda k=k: jn.fit(model_of(lambda z: -5 * ((z - k) ** 2).sum()), **WAYS[way]))
        assert abs(mean_of(fit) - k) < 0.2
        counts.append(n)
    assert counts[1:] == [0, 0, 0, 0]


def test_rules_of_derivatives_are_part_of_a_function():
    """A custom_jvp whose rule alone differs is another function; so is one whose rule reads other data."""

    def model(slope):
        @jax.custom_jvp
        def square(z):
            return (z**2).sum()

        square.defjvp(lambda primals, tangents: (square(*primals), (slope * primals[0] * tangents[0]).sum()))
        return jn.models.LogDensity(lambda z: -0.5 * square(z), (2,)).twin().traced([Batch()])

    z = jnp.ones(2)
    for slope in (2.0, 4.0, np.full((2,), 3.0)):
        made = model(slope)
        grad = jax.grad(lambda z, made=made: made.log_density(z, Batch()))(z)
        np.testing.assert_allclose(grad, -0.5 * np.broadcast_to(slope, (2,)), rtol=1e-6)
    one, same, other = (model(s).fn.programs[0][1] for s in (2.0, 2.0, 4.0))
    assert one == same and one != other


def test_a_program_is_equal_if_every_step_is():
    """Names, line numbers and data do not count; an operation, a shape, a dtype, a constant in the code do."""
    y = np.arange(3.0)
    make = lambda f, *args: Program(jax.make_jaxpr(f)(*args))
    base = make(lambda z: (z * y).sum() + 0.25, jnp.ones(3))
    assert base == make(lambda w: (w * (y + 1)).sum() + 0.25, jnp.ones(3))
    others = [
        make(lambda z: (z * y).sum() + 0.5, jnp.ones(3)), make(lambda z: (z + y).sum() + 0.25, jnp.ones(3)),
        make(lambda z: (z * y).max() + 0.25, jnp.ones(3)), make(lambda z: (z * y[:1]).sum() + 0.25, jnp.ones(3)),
        make(lambda z: (z * y).sum() + 0.25, jnp.ones((2, 3))),
    ]  # fmt: skip
    assert len({base, *others}) == 6


def test_optimisers_and_parts_of_a_users_own_are_traced_too():
    """A schedule that reads a global, a family whose method does: changed values are used."""
    rate = 0.0

    def fit(kind):
        optimizer = optax.adam(lambda step: rate)
        return jn.fit(model_of(kinds.reads_global), family="mean-field", n_steps=300, optimizer=optimizer)

    kinds.DATA = data(3.0)
    fit("warm")
    still = mean_of(fit("still"))
    rate = 0.1
    assert abs(still) < 0.2 and abs(mean_of(fit("moved")) - 3.0) < 0.2


# ---- precision, and the user's own JAX code ---------------------------------------------------------------------------
def nuts(fn):
    from numpyro.infer import MCMC, NUTS

    mcmc = MCMC(NUTS(fn), num_warmup=50, num_samples=100, progress_bar=False)
    mcmc.run(jax.random.key(0))
    return float(mcmc.get_samples()["mu"].mean())


def svi(fn):
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    guide = AutoNormal(fn)
    result = SVI(fn, guide, numpyro.optim.Adam(0.1), Trace_ELBO()).run(jax.random.key(0), 300, progress_bar=False)
    return float(result.params["mu_auto_loc"])


def gradient(fn):
    return float(10 * kinds.DATA.mean() - 0 * jax.jit(jax.grad(lambda m: log_joint(fn, m)))(3.0)) / 10


def log_joint(fn, m):
    from numpyro.infer.util import log_density

    return log_density(fn, (), {}, {"mu": m})[0]


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("own", [nuts, svi, gradient])
def test_the_users_own_code_before_between_and_after(own, way, double):
    y = data(3.0)

    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 100.0))
        with numpyro.plate("rows", kinds.N):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    kinds.DATA = y
    with jax.enable_x64(double):
        for _ in range(2):
            assert abs(own(model) - 3.0) < 0.5
            fit = jn.fit(jn.from_numpyro(model), **WAYS[way])
            assert abs(mean_of(fit) - 3.0) < 0.2 and abs(fit.predict(200)["y"].mean() - 3.0) < 0.4
    with jax.enable_x64(not double):  # where JAX itself may fail on arrays that it knows in the other precision
        assert abs(mean_of(jn.fit(jn.from_numpyro(model), **WAYS[way])) - 3.0) < 0.2
    with jax.enable_x64(double):
        assert abs(own(model) - 3.0) < 0.5


T = 1.6e9 + np.arange(40.0)  # Unix time
Y = 0.5 * (T - 1.6e9) + np.random.default_rng(0).normal(size=40)


def test_captured_time_stamps_keep_their_digits_or_are_refused():
    """In double precision right; in single precision refused where they enter as they are, right where NumPy centred them."""
    t = T - 1.6e9
    slope = float((t @ Y) / (t @ t))
    raw = jn.models.LogDensity(lambda b: -0.5 * ((Y - b * jnp.subtract(T, 1.6e9)) ** 2).sum(), (1,))
    centred = jn.models.LogDensity(lambda b: -0.5 * ((Y - b * (T - 1.6e9)) ** 2).sum(), (1,))
    assert abs(mean_of(jn.fit(raw)) - slope) < 1e-3
    with pytest.raises(jn.DataError, match="reads"):
        jn.fit(raw, **STEPS)
    assert abs(mean_of(jn.fit(centred, **STEPS)) - slope) < 0.02


# ---- caches -----------------------------------------------------------------------------------------------------------
class Array(np.ndarray):
    """An array that can be watched."""


def _closures_over(size, n, refs, **options):
    for i in range(n):
        _closure_over(np.full(size, float(i % 3)).view(Array), i % 3, refs, options)


def _closure_over(y, mean, refs, options):
    refs.append(weakref.ref(y))
    fit = jn.fit(jn.models.LogDensity(lambda z: -0.5 * ((z - y) ** 2).mean() * 100, (1,)), **options)
    assert abs(mean_of(fit) - mean) < 0.2


@pytest.mark.parametrize("way", WAYS)
def test_caches_hold_no_data(way):
    refs = []
    _closures_over(10_000, 6, refs, **WAYS[way])
    gc.collect()
    assert sum(r() is not None for r in refs) == 0


@pytest.mark.slow
def test_two_hundred_fits_of_new_closures_over_eight_megabytes():
    refs: list = []
    options = STEPS | {"n_steps": 100, "n_draws": 256}
    _closures_over(1_000_000, 10, refs, **options)
    gc.collect()
    before = _resident()
    _closures_over(1_000_000, 200, refs, **options)
    gc.collect()
    assert sum(r() is not None for r in refs) == 0
    assert _resident() - before < 50 * 2**20


def _resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") or resource.getpagesize()


def test_caches_are_bounded_and_can_be_emptied():
    from jensen.compiled import PROGRAMS, compiled

    @compiled(1)
    def add(x, n):
        return x + n

    for n in range(PROGRAMS + 5):
        assert int(add(1, n)) == n + 1
    assert len(add) == PROGRAMS
    jn.clear_caches()
    assert len(add) == 0 and int(add(1, 2)) == 3


# ---- checkpoints ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["def, global array", "helper", "method", "partial", "numpyro", "equinox module"])
def test_a_checkpoint_of_other_data_is_not_resumed(kind, tmp_path):
    fn, change = KINDS[kind]()
    change(data(3.0))
    options = STEPS | {"checkpoint": tmp_path}
    jn.fit(model_of(fn), **options)
    resumed = jn.fit(model_of(fn), **options)
    assert len(resumed.history) == STEPS["n_steps"]
    change(data(9.0))
    with pytest.raises(CheckpointError):
        jn.fit(model_of(fn), **options)


def test_a_checkpoint_of_a_black_box_is_known_by_its_values(tmp_path):
    bag = {"y": data(3.0)}
    model = lambda: jn.models.BlackBox(
        lambda z: -0.5 * float(((z - bag["y"]) ** 2).sum()), (1,), gradient=lambda z: (bag["y"] - z).sum(keepdims=True)
    )
    options = STEPS | {"checkpoint": tmp_path, "n_steps": 200}
    jn.fit(model(), **options)
    jn.fit(model(), **options)
    bag["y"] = data(9.0)
    with pytest.raises(CheckpointError):
        jn.fit(model(), **options)
