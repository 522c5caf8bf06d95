"""Methods as objects, classes and names; one of a user's own; what a method cannot do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.algorithms.gaussian import Gaussian
from jensen.methods.lookup import exported, method_named, method_names

MEAN = np.array([1.0, -2.0, 0.5])


def density(z):
    return -0.5 * jnp.sum((z - MEAN) ** 2 / jnp.array([1.0, 4.0, 0.25]))


def model():
    return jn.models.LogDensity(density, 3)


@dataclasses.dataclass
class Newton(jn.methods.AbstractSolver):
    """A user's own: a Newton step from zero, by differences of gradients: exact for a Gaussian."""

    width: float = 0.1
    shrunk: float = 1.0

    def _solve(self, target, start, seed):
        d = target.dim
        points = np.concatenate([np.zeros((1, d)), self.width * np.eye(d)])
        _, gradient = target(points)
        hessian = (gradient[1:] - gradient[:1]) / self.width
        mean = -np.linalg.solve(hessian, gradient[0])
        return jn.methods.Solution(Gaussian(mean, self.shrunk * np.linalg.cholesky(np.linalg.inv(-hessian))))


class Twice(jn.methods.AbstractMethod):
    """A user's own that asks another method, and takes its result."""

    def run(self, task):
        return task.solved(Newton())


def test_a_method_of_ones_own_is_judged_and_kept(tmp_path):
    fit = jn.fit(model(), method=Newton())
    assert str(fit.verdict) == "RELIABLE"
    assert fit.options["method"] == fit.options["asked"] == fit.trail[-1].family == "newton"
    np.testing.assert_allclose(fit.family.loc, MEAN, atol=1e-6)
    np.testing.assert_allclose(np.diag(fit.family.cholesky()), [1, 2, 0.5], rtol=1e-6)
    again = jn.load(fit.save(tmp_path / "fit"), model=model())
    assert fit.options.items() <= again.options.items()
    np.testing.assert_array_equal(again.sample(5), fit.sample(5))
    assert jn.fit(model(), method=Newton).options["method"] == "newton"
    assert jn.fit(model(), method=Twice()).options["method"] == "newton"
    refitted = fit.refit(jn.models.LogDensity(lambda z: density(z + 1.0), 3))
    assert refitted.options["method"] == "newton"


def test_a_wrong_method_of_ones_own_is_not_reliable():
    """The negative control: a q that is too narrow by half."""
    fit = jn.fit(model(), method=Newton(shrunk=0.5))
    assert str(fit.verdict) != "RELIABLE"
    assert fit.options["method_options"] == {"shrunk": 0.5}


def test_a_method_of_ones_own_keeps_the_budget():
    fit = jn.fit(model(), method=Newton(), budget="evaluations:300")
    assert fit.options["evaluations"] <= 450


@pytest.mark.parametrize("name", method_names())
def test_name_class_and_object_are_the_same(name):
    found = method_named(name)
    assert found.label == ("pcd" if name == "contrastive-divergence" else name)
    assert method_named(found) is found
    assert type(method_named(type(found))) is type(found)
    assert method_named(name.upper().replace("-", "_")).options() == found.options()
    assert name in repr(found).lower() or type(found).__name__ in repr(found)
    assert exported()[type(found).__name__] is type(found)


def test_options_reach_the_solver():
    few, many = (
        jn.fit(model(), method=jn.methods.Pathfinder(n_paths=n), n_draws=64).options["evaluations"] for n in (1, 8)
    )
    assert many > few
    assert jn.fit(model(), method=jn.methods.HMC(n_chains=16), n_draws=64).options["method_options"] == {"n_chains": 16}


def test_gradient_vi_as_an_object_is_what_its_sugar_is():
    how = {"family": "full-rank", "n_steps": 30, "optimizer": 0.1}
    sugar = jn.fit(model(), **how)
    for fit in (jn.fit(model(), method=jn.methods.GradientVI(**how)), jn.fit(model(), method="gradient", **how)):
        np.testing.assert_array_equal(fit.history, sugar.history)
    with pytest.raises(jn.OptionError, match="set there"):
        jn.fit(model(), method=jn.methods.GradientVI(n_steps=3), n_steps=4)


SOLVERS = [c for c in exported().values() if issubclass(c, jn.methods.AbstractSolver)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda c: c.__name__)
def test_options_out_of_range_are_refused(solver):
    for field in dataclasses.fields(solver):
        if not isinstance(field.default, bool):
            for value in (0, -1, float("nan"), float("inf")):
                with pytest.raises(jn.OptionError, match=f"{solver.__name__}.*{field.name}"):
                    solver(**{field.name: value})
    with pytest.raises(TypeError):
        solver(nonsense=3)


ROWS = np.random.default_rng(0).normal(size=(60, 2))
MACHINE_ROWS = (ROWS > 0).astype(np.float32)


def mixture():
    return jn.models.GaussianMixture(2), ROWS


def machine():
    return jn.models.RBM(2, 3), MACHINE_ROWS


def plain():
    return model(), None


def decoder():
    return jn.models.LatentVariable.mlp(jax.random.key(0), 1, (2,), hidden=(3,)), MACHINE_ROWS


@pytest.mark.parametrize(
    ("made", "options", "match"),
    [
        (mixture, {"family": "full-rank"}, "there is no q to choose"),
        (mixture, {"n_draws": 100}, "there is no q to choose"),
        (mixture, {"accuracy": 0.1}, "there is no q to choose"),
        (mixture, {"method": jn.methods.EM(n_starts=2), "n_restarts": 3}, "set there"),
        (machine, {"objective": "ELBO"}, "without q"),
        (machine, {"n_draws": 100}, "without q"),
        (machine, {"n_restarts": 2}, "without q"),
        (plain, {"method": "nuts", "n_steps": 10}, "stochastic gradients"),
        (plain, {"method": jn.methods.NUTS(), "family": "mean-field"}, "stochastic gradients"),
        (plain, {"method": "gradient", "accuracy": 0.1}, "no such end"),
        (plain, {"on_chunk": print}, "rung by rung"),
        (decoder, {"method": "wake-sleep", "gradient": "pathwise"}, "objectives of its own"),
        (decoder, {"method": jn.methods.VCD(n_steps=2), "objective": "ELBO"}, "objectives of its own"),
    ],
)
def test_an_option_that_the_method_does_not_have_is_refused(made, options, match):
    with pytest.raises(jn.OptionError, match=match):
        jn.fit(*made(), **options)


@pytest.mark.parametrize(
    ("made", "method", "match"),
    [
        (mixture, "nuts", "there is no q to choose"),
        (mixture, "gradient", "there is no q to choose"),
        (mixture, jn.methods.ContrastiveDivergence(), "Boltzmann"),
        (machine, "em", "E-step of their own"),
        (machine, jn.methods.Ladder(), "without q"),
        (plain, "em", "E-step of their own"),
        (plain, "pcd", "Boltzmann"),
        (decoder, jn.methods.Ladder(), "every row has a latent of its own"),
        (decoder, "pathfinder", "every row has a latent of its own"),
        (decoder, "flow", "every row has a latent of its own"),
        (decoder, Newton(), "every row has a latent of its own"),
        (decoder, Twice(), "every row has a latent of its own"),
        (plain, "variational-em", "there is no M-step"),
    ],
)
def test_a_method_that_is_not_for_the_model_is_refused(made, method, match):
    with pytest.raises(jn.IncompatibleComposition, match=match):
        jn.fit(*made(), method=method)


@pytest.mark.parametrize("method", ["nope", 3, jn.families.MeanField(), Gaussian, lambda: 1])
def test_what_is_no_method_is_refused(method):
    with pytest.raises(jn.OptionError, match="there is no such method"):
        jn.fit(model(), method=method)


def test_a_models_default_method_is_taken_and_its_options_reach_it():
    fit = jn.fit(*mixture(), method=jn.methods.EM(n_starts=2, tol=1e-3), seed=1)
    assert len(fit.starts) == 2
    found = jn.fit(*machine(), method=jn.methods.ContrastiveDivergence(k=2, persistent=False), n_steps=5)
    assert found.options["method"] == "contrastive-divergence"
    assert jn.fit(*machine(), method="cd", n_steps=5).options["method"] == "cd"
    assert jn.fit(*machine(), n_steps=5).options["method"] == "pcd"
