"""The reference itself: converged, and equal to what is known in closed form or by finite differences."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from cover import composed
from jax.flatten_util import ravel_pytree
from reference import exact

from jensen import families, gradients, models, objectives
from jensen.cells import Cell
from jensen.gradients import plans
from jensen.judge import Composition
from jensen.tree import split_trainable

DENSER = {1: 60, 2: 32, 3: 15, 5: 11}


@pytest.mark.parametrize(
    ("cell", "tolerance"),
    [
        (("global, all rows", "FullRank", "IWAE()"), 1e-3),
        (("decoder, minibatch", "LowRank", "CUBO()"), 2e-3),
        (("local, minibatch", "Amortised(MeanField)", "Renyi(0.5)"), 1e-3),
        (("global, all rows", "Mixture(FullRank)", "IWAE()"), 1e-3),
        (("global", "RealNVP", "IWAE()"), 1e-3),
        (("global", "Spline", "ELBO()"), 1e-2),
        (("global and local, all rows", "GlobalLocal(MeanField, Table)", "IWAE()"), 6e-3),
        (("global and local, minibatch", "GlobalLocal(MeanField, Amortised)", "ELBO()"), 3e-3),
        (("decoder, minibatch", "Amortised(Product)", "IWAE()"), 1e-5),
    ],
)
def test_more_nodes_change_nothing_that_could_be_seen(cell, tolerance):
    c, rows = composed(Cell(*cell, "Pathwise()", "IID()"))
    few, many = exact(c, rows), exact(c, rows, DENSER)
    assert abs(few.value - many.value) < tolerance
    np.testing.assert_allclose(few.grad, many.grad, atol=tolerance)


@pytest.mark.parametrize("family", ["FullRank", "Product(MeanField, Bernoulli)", "Categorical"])
@pytest.mark.parametrize("objective", ["ELBO()", "IWAE()"])
def test_the_gradient_is_the_slope_of_the_value(family, objective):
    c, rows = composed(Cell("global", family, objective, "LeaveOneOut()", "IID()"))
    diff, rest = split_trainable((c.model, c.family))
    vector, unravel = ravel_pytree(diff)
    at = lambda v: exact(c._replace(**dict(zip(("model", "family"), eqx.combine(unravel(v), rest), strict=True))), rows)
    direction = jnp.cos(jnp.arange(vector.size) + 0.5)
    slope = (at(vector + 1e-4 * direction).value - at(vector - 1e-4 * direction).value) / 2e-4
    np.testing.assert_allclose(-slope, exact(c, rows).grad @ direction, atol=1e-5)


def test_a_normal_posterior_gives_the_closed_form():
    """ELBO of N(m, s^2) for p = N(0, 1) unnormalised: -(m^2 + s^2)/2 + log s + (1 + log 2 pi)/2."""
    m, s = 0.4, 1.3
    model = models.LogDensity(lambda z: -0.5 * (z**2).sum(), (1,))
    q = families.MeanField((1,), loc=jnp.array([m]), scale=s)
    c = Composition(model, q, objectives.ELBO(), gradients.Pathwise(), plans.IID())
    found = exact(c, None)
    np.testing.assert_allclose(found.value, -(m**2 + s**2) / 2 + np.log(s) + (1 + np.log(2 * np.pi)) / 2, atol=1e-10)
    np.testing.assert_allclose(found.grad, [m, s**2 - 1], atol=1e-9)  # of the loss, in loc and log scale
