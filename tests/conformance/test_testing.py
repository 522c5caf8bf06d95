"""`jensen.testing`: our own parts pass, and parts with one mistake each do not."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen import families, gradients, testing
from jensen.algorithms.gaussian import Gaussian
from jensen.facts import Fact
from jensen.fit.defaults import exported
from jensen.gradients import plans
from jensen.gradients.base import AbstractSimple, Terms
from jensen.gradients.requirements import REPARAMETERISED

TWO = {"a": (1,), "b": (1,)}
FAMILIES = {
    "MeanField": families.MeanField,
    "FullRank": families.FullRank,
    "LowRank": families.LowRank,
    "Mixture": families.Mixture,
    "RealNVP": lambda: families.RealNVP(n_layers=2, width=4),
    "InverseAutoregressive": lambda: families.InverseAutoregressive(n_layers=2, width=4),
    "Planar": lambda: families.Planar(n_layers=2),
    "SinhArcsinh": families.SinhArcsinh,
    "Autoregressive": lambda: families.Autoregressive(("b", "a")),
    "Bernoulli": families.Bernoulli,
    "Categorical": families.Categorical,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_our_families_pass(name):
    shapes = {"Categorical": (2, 3), "Bernoulli": (3,)}.get(name, TWO)
    testing.check_family(FAMILIES[name](), shapes)


def test_a_family_that_reads_rows_passes():
    rows = np.random.default_rng(0).normal(size=(5, 3))
    testing.check_family(families.Amortised(hidden=(4,)), (2,), rows)


class Louder(families.MeanField):
    """Draws are wider than the density says."""

    def transform(self, noise):
        return jax.tree.map(lambda a: 1.5 * a, super().transform(noise))

    def log_prob(self, draw):
        return super().log_prob(draw)


class Heavier(families.MeanField):
    """The density has another mass."""

    def log_prob(self, draw):
        return super().log_prob(draw) + 0.3


class LouderMixture(families.Mixture):
    """The same of a mixture, whose draws are no map of as much noise."""

    def log_prob(self, draw):
        return super().log_prob(jax.tree.map(lambda a: a / 1.2, draw))


class Wider(families.MeanField):
    """Draws by another way are other draws, and its entropy is of another law."""

    facts = families.MeanField.facts

    def entropy(self):
        return super().entropy() + 0.2

    def noise_law(self):
        return super().noise_law()


class Lost(families.MeanField):
    """It forgets what it is."""

    def bind(self, latents, rows, key):
        return families.MeanField().bind(latents, rows, key)


class Loaded(families.Bernoulli):
    """Probabilities that do not sum to one."""

    def log_prob(self, draw):
        return 1.1 * super().log_prob(draw)


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (Louder, "log_prob"),
        (Heavier, "log_prob"),
        (LouderMixture, "mass, mean"),
        (Wider, "entropy"),
        (Lost, "bind"),
        (Loaded, "mass"),
    ],
)
def test_a_family_with_a_mistake_does_not(made, match):
    with pytest.raises(testing.Wrong, match=match):
        testing.check_family(made, (3,))


# ---- models ---------------------------------------------------------------------------------------------------------
def regression(x, y=None):
    slope, scale = numpyro.sample("slope", dist.Normal(0, 3)), numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def per_row(z, x):
    return -0.5 * ((x - z) ** 2).sum()


X = np.linspace(-1, 1, 8)


def test_our_models_pass():
    testing.check_model(jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), 3))
    testing.check_model(regression, {"x": X, "y": 2 * X})
    rows = np.random.default_rng(0).normal(size=(6, 2))
    testing.check_model(jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), 2, log_likelihood=per_row), rows)
    testing.check_model(jn.models.LatentVariable.mlp(jax.random.key(0), 2, (2,), hidden=(3,)), rows)


class Positive(jn.models.LogDensity):
    """A model of a positive latent; the inverse says another Jacobian."""

    def constrain(self, z):
        return jnp.exp(z)

    def unconstrain(self, x):
        return jnp.log(x), -jnp.log(x).sum()


class NoInverse(Positive):
    """An inverse that is none."""

    def unconstrain(self, x):
        return jnp.log(x) + 1.0, jnp.log(x).sum()


class Right(Positive):
    """The control."""

    def unconstrain(self, x):
        return jnp.log(x), jnp.log(x).sum()


def stopped(z):
    return -0.5 * (z * jax.lax.stop_gradient(z)).sum()


def test_a_model_with_a_mistake_does_not():
    density = lambda z: -0.5 * (z**2).sum()
    testing.check_model(Right(density, 2))
    for model, match in (
        (Positive(density, 2), "log .det"),
        (NoInverse(density, 2), "constrain"),
        (jn.models.LogDensity(stopped, 2), "derivative along a line"),
        (jn.models.LogDensity(lambda z: jnp.nan * z.sum(), 2), "finite at none"),
    ):
        with pytest.raises(testing.Wrong, match=match):
            testing.check_model(model)


# ---- plans, estimators ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", exported(plans))
def test_our_plans_pass(name):
    testing.check_plan(exported(plans)[name]())


class Narrow(plans.IID):
    """Draws of another law."""

    def draw(self, key, law, shape):
        return jax.tree.map(lambda a: 0.9 * a, super().draw(key, law, shape))


def test_a_plan_of_another_law_does_not():
    with pytest.raises(testing.Wrong, match="another law"):
        testing.check_plan(Narrow())


class Short(AbstractSimple):
    """A tenth too small, and says that it is unbiased."""

    requires: ClassVar = (REPARAMETERISED,)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None

    def terms(self, noise, bound, carry):
        value = bound.log_weight(bound.draw(noise)).mean(0)
        return Terms(0.9 * value, value)


@pytest.mark.parametrize("made", [gradients.Pathwise, gradients.LeaveOneOut, gradients.DoublyReparameterised])
def test_our_estimators_pass(made):
    testing.check_estimator(made(), seconds=1.0)


def test_an_estimator_with_a_mistake_does_not():
    with pytest.raises(testing.Wrong, match="off from the gradient"):
        testing.check_estimator(Short(), seconds=1.0)


# ---- methods --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["laplace", "pathfinder", "importance", "hmc"])
def test_our_methods_pass(name):
    testing.check_method(name)


@dataclasses.dataclass
class Solver(jn.methods.AbstractSolver):
    """A solver with one fault of several."""

    fault: ClassVar = ""

    def _solve(self, target, start, seed):
        if self.fault == "spends":
            for _ in range(40):
                target.budget.spend(100)
        shift = np.random.default_rng().normal() if self.fault == "random" else 0.0
        return jn.methods.Solution(Gaussian(np.full(target.dim, shift), np.eye(target.dim)))

    def problems(self, task):
        return [] if self.fault == "takes all" else super().problems(task)

    def run(self, task):
        if self.fault == "takes all" and task.obstacle:
            raise KeyError("nothing")
        return super().run(task)


class Random(Solver):
    fault: ClassVar = "random"


class Spends(Solver):
    fault: ClassVar = "spends"


class TakesAll(Solver):
    fault: ClassVar = "takes all"


@pytest.mark.parametrize(
    ("made", "match"), [(Random, "same seed"), (Spends, "with a budget of"), (TakesAll, "fails with KeyError")]
)
def test_a_method_with_a_mistake_does_not(made, match):
    testing.check_method(Solver)  # the control
    with pytest.raises(testing.Wrong, match=match):
        testing.check_method(made)


def test_facts_are_read(monkeypatch):
    """A promise that is not made is not checked."""

    class Silent(Wider):
        facts = families.MeanField.facts - {Fact.ENTROPY}

    testing.check_family(Silent, (3,))
    assert issubclass(testing.Wrong, AssertionError)
    assert eqx.is_array(jnp.ones(1))
