"""A model of a user's own, of the base class alone: densities of its values are right, or refused by name."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.errors import ModelError
from jensen.facts import Fact
from jensen.models.base import AbstractModel
from jensen.tree import Frozen

OPTIONS = {"progress": False, "n_draws": 512, "n_steps": 60, "family": jn.families.MeanField(scale=0.5)}
SMOOTH = frozenset({Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT})


class AbstractOwn(AbstractModel):
    facts: ClassVar = SMOOTH
    plated: ClassVar = False

    def log_density(self, z, x):
        return -0.5 * sum((a**2).sum() for a in jax.tree.leaves(z))

    @property
    def latents(self):
        return jax.ShapeDtypeStruct((2,), jnp.result_type(float))


class Scales(AbstractOwn):
    @property
    def latents(self):
        one = jax.ShapeDtypeStruct((), jnp.result_type(float))
        return {"m": one, "s": one}

    def constrain(self, z):
        return {"m": z["m"], "s": jnp.exp(z["s"])}


class Unit(AbstractOwn):
    def constrain(self, z):
        return jax.nn.sigmoid(z)


class Turned(AbstractOwn):
    """Not coordinate by coordinate."""

    def constrain(self, z):
        return jnp.stack([z[0] + z[1], jnp.exp(z[0] - z[1])])


class Simplex(AbstractOwn):
    """Of more values than coordinates."""

    def constrain(self, z):
        return jax.nn.softmax(jnp.concatenate([z, jnp.zeros(1)]))


class Halves(AbstractOwn):
    plated: ClassVar = True

    def log_density(self, z, x):
        return -0.5 * ((z - x) ** 2).sum()

    def constrain(self, z):
        return jnp.exp(z)


class Plain(AbstractOwn):
    def constrain(self, z):
        return z


INVERSE = {
    Scales: lambda self, x: {"m": x["m"], "s": jnp.log(x["s"])},
    Unit: lambda self, x: jax.scipy.special.logit(x),
    Turned: lambda self, x: jnp.stack([x[0] + jnp.log(x[1]), x[0] - jnp.log(x[1])]) / 2,
    Halves: lambda self, x: jnp.log(x),
}


def fitted(model):
    if not model.plated:
        return jn.fit(model, **OPTIONS)
    rows = np.linspace(-1, 1, 8).reshape(4, 2)
    return jn.fit(model, rows, **{**OPTIONS, "family": jn.families.Table(OPTIONS["family"])})


@pytest.mark.parametrize("cls", [Scales, Unit, Turned, Simplex, Halves])
def test_the_missing_method_is_named(cls):
    fit = fitted(cls())
    x = fit.sample(3)
    with pytest.raises(ModelError, match=rf"`{cls.__name__}.unconstrain` is missing[\s\S]*def unconstrain\(self, x\)"):
        fit.log_prob(x)
    assert len(fit.summary()) == sum(a[0].size for a in jax.tree.leaves(x))  # what needs no inverse works


@pytest.mark.parametrize("cls", list(INVERSE))
def test_an_inverse_alone_is_enough_where_there_is_a_determinant(cls):
    own = type(f"My{cls.__name__}", (cls,), {"unconstrain": INVERSE[cls]})
    fit = fitted(own())
    u, x = fit.unconstrained(5), fit.sample(5)
    log_det = lambda z: jnp.linalg.slogdet(_jacobian(own().constrain, z))[1]
    if own.plated:
        q = lambda z, row: fit.family(row).log_prob(z) - log_det(z)
        want = [[q(z, row) for z, row in zip(zs, fit.rows, strict=True)] for zs in jnp.asarray(u)]
    else:
        pick = lambda i: jax.tree.map(lambda a: jnp.asarray(a[i]), u)
        want = [fit.family.log_prob(pick(i)) - log_det(pick(i)) for i in range(5)]
    np.testing.assert_allclose(fit.log_prob(x), np.asarray(want), rtol=1e-6, atol=1e-6)


def _jacobian(constrain, z):
    flat, back = jax.flatten_util.ravel_pytree(z)
    return jax.jacfwd(lambda f: jax.flatten_util.ravel_pytree(constrain(back(f)))[0])(flat)


def test_the_inverse_with_its_determinant():
    class Full(Unit):
        def unconstrain(self, x):
            return jax.scipy.special.logit(x), (jnp.log(x) + jnp.log1p(-x)).sum()

    alone = type("Alone", (Unit,), {"unconstrain": INVERSE[Unit]})
    one, other = fitted(Full()), fitted(alone())
    x = one.sample(4)
    np.testing.assert_allclose(one.log_prob(x), other.log_prob(x), rtol=1e-6)


def test_an_inverse_that_is_none_is_refused():
    class Wrong(Scales):
        def unconstrain(self, x):
            return jnp.log(x["s"])

    class NoDeterminant(Simplex):
        def unconstrain(self, x):
            return jnp.log(x[:2]) - jnp.log(x[2])

    for model, wrong in ((Wrong(), r"returned \[\(\)\]"), (NoDeterminant(), "3 values of 2 coordinates")):
        fit = fitted(model)
        x = fit.sample(2)
        with pytest.raises(ModelError, match=wrong):
            fit.log_prob(x)


def test_the_identity_needs_no_inverse():
    fit = fitted(Plain())
    x = fit.sample(3)
    np.testing.assert_allclose(fit.log_prob(x), [fit.family.log_prob(jnp.asarray(a)) for a in x], rtol=1e-6)


def test_calibration_needs_no_inverse():
    class Far(Scales):
        y: Any = None

        def log_density(self, z, x):
            return super().log_density(z, x) - 0.5 * ((self.y.value - z["m"]) ** 2).sum() / 100

    def simulate(key):
        z = {"m": jax.random.normal(key), "s": jax.random.normal(jax.random.fold_in(key, 1))}
        return z, Far(Frozen(z["m"] + 10 * jax.random.normal(jax.random.fold_in(key, 2), (3,))))

    first = simulate(jax.random.key(0))[1]
    fit = jn.fit(first, progress=False, n_draws=512)
    study = fit.calibrate(20, simulate=simulate)
    assert study.n_failed == 0 and study.ok, study.reasons


def test_arrays_of_a_model_that_are_fitted_are_named():
    class Holds(Plain):
        y: Any = None

        def log_density(self, z, x):
            y = self.y.value if isinstance(self.y, Frozen) else self.y
            return -0.5 * ((y - z) ** 2).sum() - 0.5 * (z**2).sum()

    y = jnp.ones((3, 2))
    said = lambda fit: [r for r in fit.reasons if "fitted along with q" in r]
    assert "`y` (6)" in said(jn.fit(Holds(y), **OPTIONS))[0]
    assert not said(jn.fit(Holds(Frozen(y)), **OPTIONS))
