"""Odd models: fitted right, or refused with four parts; never an exception of JAX, NumPy or Python, never a silent answer."""

import functools
import math
import random

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

import jensen as jn
from jensen.models import BlackBox, LatentVariable, LogDensity

X = np.random.default_rng(0).normal(size=(12, 3)) + 0.5
NOISE = np.random.default_rng(1)
CENTRE = np.array([0.5, -1.0, 2.0])
right = lambda z: -0.5 * ((z - CENTRE) ** 2).sum()
rows = lambda z, x: -0.5 * ((x - z) ** 2).sum()


def four_parts(error) -> str:
    text = str(error.value)
    assert all(part in text for part in ("wrong:", "because:", "instead:")), text
    return text


def in_place(z):
    z[0] = 1.0
    return right(z)


def adds_in_place(z):
    total = np.zeros(3)
    total[0] = z[0]
    return -total.sum()


def branch(z):
    return right(z) if z[0] > 0 else 2 * right(z)


def loop(z):
    i = 0
    while i < z[0]:
        i += 1
    return right(z)


def chained(z):
    return right(z) if 0 < z[0] < 1 else -jnp.inf


def own_error(z):
    raise ValueError("the user's own words")


def generator(z):
    yield right(z)


async def coroutine(z):
    return right(z)


def helper():
    return np.random.normal()  # noqa: NPY002


def without_gradient(z):
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.0), (0, right(z)))[1]


class Callable:
    def __call__(self, z):
        return right(z)


class Needs:
    def __init__(self, z):
        self.z = z

    def __call__(self, z):
        return right(z)


class Module(eqx.Module):
    centre: jax.Array

    def __call__(self, z):
        return z - self.centre  # a vector


# name: (function of a LogDensity over (3,), a word of the message)
FUNCTIONS = {
    "int array": (lambda z: z.astype(int).sum(), "integer"),
    "int constant": (lambda z: 0, "whatever z is"),
    "float constant": (lambda z: 0.5, "whatever z is"),
    "numpy constant": (lambda z: np.float64(0.5), "whatever z is"),
    "bool array": (lambda z: (z > 0).all(), "bool"),
    "bool": (lambda z: True, "bool"),
    "complex": (lambda z: right(z) + 0j, "complex"),
    "complex constant": (lambda z: 1j, "complex"),
    "None": (lambda z: None, "None"),
    "vector": (lambda z: -(z**2), "(3,)"),
    "vector of one": (lambda z: right(z)[None], "(1,)"),
    "matrix": (lambda z: -z[:, None] * z, "(3, 3)"),
    "tuple": (lambda z: (right(z), 1.0), "tuple"),
    "list": (lambda z: [right(z)], "list"),
    "dict": (lambda z: {"log_prob": right(z)}, "dict"),
    "string": (lambda z: "right", "str"),
    "a function": (lambda z: right, "function"),
    "numpy.exp": (lambda z: -np.exp(z).sum(), "BlackBox"),
    "numpy.where": (lambda z: -np.where(z > 0, z, 0).sum(), "BlackBox"),
    "numpy.linalg": (lambda z: -np.linalg.norm(z), "BlackBox"),
    "numpy.linalg.solve": (lambda z: -np.linalg.solve(np.eye(3), z).sum(), "BlackBox"),
    "numpy.array": (lambda z: -np.array([z[0], z[1]]).sum(), "BlackBox"),
    "float()": (lambda z: -float(z[0]), "BlackBox"),
    "int()": (lambda z: -int(z[0]), "BlackBox"),
    "item()": (lambda z: -z[0].item(), "BlackBox"),
    "tolist()": (lambda z: -sum(z.tolist()), "BlackBox"),
    "if": (branch, "BlackBox"),
    "chained comparison": (chained, "BlackBox"),
    "while": (loop, "BlackBox"),
    "range(z)": (lambda z: sum(range(z[0])), "BlackBox"),
    "boolean index": (lambda z: -z[z > 0].sum(), "BlackBox"),
    "math.log": (lambda z: math.log(z[0]), "BlackBox"),
    "math of a vector": (lambda z: math.exp(z), "BlackBox"),
    "scipy.stats": (lambda z: scipy.stats.norm.logpdf(z).sum(), "BlackBox"),
    "scipy.special": (lambda z: scipy.special.gammaln(z).sum(), "BlackBox"),
    "scipy.linalg": (lambda z: -scipy.linalg.norm(z), "BlackBox"),
    "in place": (in_place, "BlackBox"),
    "into a numpy array": (adds_in_place, "BlackBox"),
    "own error": (own_error, "the user's own words"),
    "key error": (lambda z: {}["missing"], "KeyError"),
    "division by zero": (lambda z: 1 / 0, "ZeroDivisionError"),
    "assertion": (lambda z: (_ for _ in ()).throw(AssertionError("no")), "AssertionError"),
    "does not broadcast": (lambda z: -((z - jnp.ones(4)) ** 2).sum(), "(4,)"),
    "wrong product": (lambda z: jnp.ones((2, 2)) @ z, "float64[3]"),
    "unknown name": (lambda z: undefined_name(z), "undefined_name"),
    "index beyond": (lambda z: -z["a"], "TypeError"),
    "numpy.random": (lambda z: right(z - np.random.normal(size=3)), "random numbers"),  # noqa: NPY002
    "captured generator": (lambda z: right(z - NOISE.normal(size=3)), "random numbers"),
    "random": (lambda z: right(z) * random.random(), "random numbers"),
    "random in a helper": (lambda z: right(z - helper()), "random numbers"),
    "generator": (generator, "generator"),
    "coroutine": (coroutine, "coroutine"),
    "an Equinox module": (Module(jnp.zeros(3)), "(3,)"),
    "no gradient": (without_gradient, "differentiate"),
    "callback": (
        lambda z: jax.pure_callback(lambda z: np.sum(z), jax.ShapeDtypeStruct((), z.dtype), z),
        "differentiate",
    ),
    "NaN": (lambda z: jnp.nan * z.sum(), "NaN"),
    "+inf": (lambda z: jnp.inf + z.sum(), "+inf"),
    "-inf": (lambda z: z.sum() - jnp.inf, "-inf"),
    "log of a negative": (lambda z: jnp.log(-1 - z[0] ** 2), "NaN"),
    "division": (lambda z: 1 / (z[0] * 0.0) ** 2, "+inf"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_odd_log_density_is_refused_in_words(name):
    fn, word = FUNCTIONS[name]
    with pytest.raises(jn.ModelError) as error:
        jn.fit(LogDensity(fn, (3,)), progress=False)
    assert word in four_parts(error)


@pytest.mark.parametrize("name", ["numpy.exp", "if", "int array", "None", "own error", "no gradient", "numpy.random"])
def test_by_steps_too(name):
    fn, word = FUNCTIONS[name]
    with pytest.raises(jn.ModelError) as error:
        jn.fit(LogDensity(fn, (3,)), method="gradient", n_steps=20, progress=False)
    assert word in four_parts(error)


def with_captured(ks):
    """What a loop with a lambda makes."""
    return [lambda z, k=k: k * right(z) for k in ks]


# name: a model over three coordinates whose posterior is N(CENTRE, I), or N(mean of rows, I / 12)
RIGHT = {
    "shape=3": lambda: (LogDensity(right, 3),),
    "a list": lambda: (LogDensity(right, [3]),),
    "numpy's number": lambda: (LogDensity(right, np.int64(3)),),
    "a list in a tuple": lambda: (LogDensity(right, ([3],)[0]),),
    "k=k": lambda: (LogDensity(with_captured([1.0])[0], 3),),
    "keyword only": lambda: (LogDensity(lambda z, *, k=1.0: k * right(z), 3),),
    "partial": lambda: (LogDensity(functools.partial(lambda k, z: k * right(z), 1.0), 3),),
    "partial by name": lambda: (LogDensity(functools.partial(lambda z, k: k * right(z), k=1.0), 3),),
    "an instance": lambda: (LogDensity(Callable(), 3),),
    "a method": lambda: (LogDensity(Callable().__call__, 3),),
    "jitted": lambda: (LogDensity(jax.jit(right), 3),),
    "prints": lambda: (LogDensity(lambda z: print(end="") or right(z), 3),),
    "numpy's sum": lambda: (LogDensity(lambda z: -0.5 * np.sum((z - CENTRE) ** 2), 3),),
    "*args": lambda: (LogDensity(lambda *a: right(a[0]), 3),),
    "a tree": lambda: (LogDensity(lambda z: right(jnp.append(z["b"], z["a"])), {"a": 1, "b": [2]}),),
    "a callback with derivatives": lambda: (BlackBox(right, 3, gradient=lambda z: CENTRE - z),),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_usual_way_of_writing_is_fitted_right(name):
    fit = jn.fit(*RIGHT[name](), progress=False)
    draws = fit.sample(4000)
    mean = np.concatenate([draws["b"], draws["a"]], 1).mean(0) if isinstance(draws, dict) else draws.mean(0)
    assert str(fit.verdict) == "RELIABLE"
    np.testing.assert_allclose(mean, CENTRE, atol=0.1)


def test_arguments_with_defaults_are_the_functions_own():
    """Not the data; and data that would have no effect are refused."""
    for k, fn in zip((1.0, 4.0), with_captured((1.0, 4.0)), strict=True):
        sd = np.std(jn.fit(LogDensity(fn, 3), progress=False).sample(4000), 0)
        np.testing.assert_allclose(sd, k**-0.5, rtol=0.1)
    for fn in (with_captured([1.0])[0], right, lambda z, x=X: rows(z, x)):
        with pytest.raises(jn.ModelError) as error:
            jn.fit(LogDensity(fn, 3), X)
        assert "takes none" in four_parts(error)
    with pytest.raises(jn.ModelError) as error:
        jn.fit(LogDensity(rows, 3))
    assert "fit(model, data)" in four_parts(error)
    both = lambda z, x, scale=0.5: rows(z, x) * scale
    fit = jn.fit(LogDensity(both, 3), X, progress=False)
    np.testing.assert_allclose(fit.sample(4000).mean(0), X.mean(0), atol=0.1)


MADE = {
    "shape is a float": (lambda: LogDensity(right, 3.0), "no shape"),
    "shape is a word": (lambda: LogDensity(right, "3"), "no shape"),
    "shape of floats": (lambda: LogDensity(right, (3.0,)), "no shape"),
    "shape below zero": (lambda: LogDensity(right, -3), "no shape"),
    "shape is True": (lambda: LogDensity(right, True), "no shape"),
    "shape is an array of numbers": (lambda: LogDensity(right, np.array([3])), "no shape"),
    "shape is nothing": (lambda: LogDensity(right, None), "no coordinates"),
    "no arguments": (lambda: LogDensity(lambda: 0.0, 3), "fn(z)"),
    "three arguments": (lambda: LogDensity(lambda a, b, c: 0.0, 3), "fn(z)"),
    "a keyword without default": (lambda: LogDensity(lambda z, *, k: k * right(z), 3), "fn(z)"),
    "not a function": (lambda: LogDensity(3.0, 3), "float"),
    "no function": (lambda: LogDensity(None, 3), "NoneType"),
    "a class": (lambda: LogDensity(Callable, 3), "the class"),
    "a class with arguments": (lambda: LogDensity(Needs, 3), "the class"),
    "a prior with data": (lambda: LogDensity(rows, 3, log_likelihood=rows), "fn(z)"),
    "a likelihood without row": (lambda: LogDensity(right, 3, log_likelihood=right), "row"),
    "a local one without row": (lambda: LogDensity(right, 3, local=True), "row"),
    "black box of no arguments": (lambda: BlackBox(lambda: 0.0, 3), "fn(z)"),
    "black box of a vector": (lambda: BlackBox(lambda z: z, 3), "(3,)"),
    "black box of None": (lambda: BlackBox(lambda z: None, 3), "None"),
    "black box that raises": (lambda: BlackBox(own_error, 3), "the user's own words"),
    "black box of another gradient": (lambda: BlackBox(right, 3, gradient=lambda z: z[:2]), "(2,)"),
    "a gradient of data alone": (lambda: BlackBox(right, 3, gradient=rows), "gradient"),
    "decoder of another size": (lambda: LatentVariable(2, eqx.nn.Linear(2, 3, key=jr.key(0)), shape=(4,)), "(4,)"),
}


@pytest.mark.parametrize("name", MADE)
def test_refused_where_it_is_made(name):
    make, word = MADE[name]
    with pytest.raises(jn.ModelError) as error:
        make()
    assert word in four_parts(error)


def boxed(fn):
    return BlackBox(fn, 3, gradient=lambda z: -z)


FITTED = {
    "rows do not broadcast": (LogDensity(rows, 4), X, "float64[12,3]"),
    "rows of words": (LogDensity(rows, 3), [["a", "b"], ["c", "d"]], "numeric"),
    "likelihood is a vector": (LogDensity(right, 3, log_likelihood=lambda z, x: -((x - z) ** 2)), X, "(3,)"),
    "likelihood of NumPy": (LogDensity(right, 3, log_likelihood=lambda z, x: np.exp(z).sum()), X, "BlackBox"),
    "black box raises later": (boxed(lambda z: right(z) if abs(z).max() < 0.3 else {}["far"]), None, "KeyError"),
    "black box is NaN": (boxed(lambda z: np.nan), None, "NaN"),
    "black box is a vector later": (boxed(lambda z: -z if z.any() else 0.0), None, "(3,)"),
    "data for a black box of none": (boxed(right), X, "takes none"),
}


@pytest.mark.parametrize("name", FITTED)
def test_refused_where_it_is_fitted(name):
    model, data, word = FITTED[name]
    with pytest.raises(jn.JensenError) as error:
        jn.fit(model, data, progress=False)
    assert word in four_parts(error)


# ---- NumPyro ---------------------------------------------------------------------------------------------------------
def of(make, obs=lambda y: y):
    def model(y):
        z = numpyro.sample("z", dist.Normal(0, 1))
        with numpyro.plate("n", len(y)):
            numpyro.sample("y", make(z), obs=obs(y))

    return model


def twice(y):
    numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("z", dist.Normal(0, 1), obs=y)


def python_if(y):
    z = numpyro.sample("z", dist.Normal(0, 1))
    if z > 0:
        numpyro.sample("y", dist.Normal(z, 1), obs=y)


def returns_early(y):
    return None


def scalar_of_a_latent(y):
    numpyro.sample("y", dist.Normal(float(numpyro.sample("z", dist.Normal(0, 1))), 1), obs=y)


COUNTS = np.array([1.0, 0.0, 2.0, 3.0])
PROGRAMS = {
    "no arguments given": (of(lambda z: dist.Normal(z, 1)), None, "missing 1"),
    "one too many": (of(lambda z: dist.Normal(z, 1)), (COUNTS, COUNTS), "takes 1"),
    "an unknown name": (of(lambda z: dist.Normal(z, 1)), {"x": COUNTS}, "unexpected"),
    "a name used twice": (twice, COUNTS, "two sites"),
    "if on a latent": (python_if, COUNTS, "jnp.where"),
    "float of a latent": (scalar_of_a_latent, COUNTS, "value of an array"),
    "NumPy on a latent": (of(lambda z: dist.Normal(np.exp(z), 1)), COUNTS, "jax.numpy"),
    "NumPy's random numbers": (of(lambda z: dist.Normal(z + np.random.normal(), 1)), COUNTS, "random"),  # noqa: NPY002
    "returns early": (returns_early, COUNTS, "no latents"),
    "counts of an open kind": (lambda y: numpyro.sample("k", dist.Poisson(2.0)), COUNTS, "discrete"),
    "shapes that do not meet": (of(lambda z: dist.Normal(z * jnp.ones(3), 1)), COUNTS, "4"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_odd_program_is_refused_in_words(name):
    model, data, word = PROGRAMS[name]
    with pytest.raises(jn.JensenError) as error:
        jn.fit(model, data, progress=False)
    assert word in four_parts(error)


OUTSIDE = {
    "negative counts": (lambda z: dist.Poisson(jnp.exp(z)), [1, -2, 3], "-2 at [1]"),
    "broken counts": (lambda z: dist.Poisson(jnp.exp(z)), [1, 2, 2.5], "2.5 at [2]"),
    "a bit of two": (lambda z: dist.Bernoulli(logits=z), [0, 1, 2], "2 at [2]"),
    "more than all": (lambda z: dist.Binomial(5, logits=z), [5, 6, 0], "6 at [1]"),
    "a negative time": (lambda z: dist.Exponential(jnp.exp(z)), [1.0, -0.5], "-0.5 at [1]"),
    "a share above one": (lambda z: dist.Beta(jnp.exp(z), 2.0), [0.5, 1.5], "1.5 at [1]"),
    "shares that miss one": (lambda z: dist.Dirichlet(jnp.exp(z) * jnp.ones(2)), [[0.5, 0.5], [0.5, 0.6]], "[1, 0]"),
    "a category too many": (lambda z: dist.Categorical(logits=jnp.array([0.0, 1.0]) * z), [0, 2], "2 at [1]"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_data_outside_of_a_support_name_the_site(name):
    make, data, where = OUTSIDE[name]
    with pytest.raises(jn.DataError) as error:
        jn.fit(of(make), np.array(data), progress=False)
    assert "observed site `y`" in four_parts(error) and where in str(error.value)


def test_data_made_in_the_model_are_looked_at_and_what_is_masked_is_not():
    with pytest.raises(jn.DataError, match="observed site `y`"):
        jn.fit(of(lambda z: dist.HalfNormal(jnp.exp(z)), obs=lambda y: y - 10), np.arange(5.0))

    def masked(y, there):
        z = numpyro.sample("z", dist.Normal(0, 1))
        with numpyro.handlers.mask(mask=there):
            numpyro.sample("y", dist.Exponential(jnp.exp(z)).expand([3]), obs=y)

    model = jn.from_numpyro(masked, np.array([1.0, -9.0, 2.0]), np.array([True, False, True]))
    assert np.isfinite(model.log_density(model.init_z()))
    unchecked = lambda z: dist.HalfNormal(jnp.exp(z), validate_args=False)
    on_the_edge = jn.from_numpyro(of(unchecked), np.array([0.0, 1.0]))
    assert np.isfinite(on_the_edge.log_density(on_the_edge.init_z()))
    moved = jn.from_numpyro(of(lambda z: dist.Uniform(0, jnp.exp(z))), np.array([0.5, 7.0]))  # z decides
    assert moved.site_kinds == {"z": "real"}


def test_the_site_at_fault_is_named_where_the_density_is_nowhere_finite():
    with pytest.raises(jn.ModelError) as error:
        jn.fit(of(lambda z: dist.LogNormal(z, 1, validate_args=False)), np.array([1.0, 0.0]), progress=False)
    assert "observed site `y`" in four_parts(error) and "[1], where it is observed as 0.0" in str(error.value)
