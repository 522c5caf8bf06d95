"""Wrong gradients must fail the test that right ones pass."""

from typing import ClassVar

import jax
import pytest
from cover import CELLS
from estimate import compare, estimates, sampler
from jax.lax import stop_gradient
from reference import exact
from test_cells import THRESHOLD

from jensen import gradients
from jensen.cells import Cell
from jensen.gradients.base import AbstractSimple, Terms
from jensen.gradients.plans import Antithetic


class _Wrong(AbstractSimple):
    requires: ClassVar = ()
    min_samples: ClassVar = 1
    unbiased: ClassVar = False
    role: ClassVar = None


class PathWithoutEntropy(_Wrong):
    """log q is stopped altogether, where only its parameters may be."""

    def terms(self, noise, bound, carry):
        weight = bound.objective.log_weight
        cell = lambda m, q, x, d: weight(m, q.latent(d), stop_gradient(q.log_ratio(d)), x)
        value = bound.reduce(bound.map(cell, bound.draw(noise)))
        return Terms(value, value)


class OnceReparameterised(_Wrong):
    """q's parameters are stopped in log q, and the second derivative of the bound is forgotten: g_k for g_k - g_kk."""

    def terms(self, noise, bound, carry):
        value = bound.reduce(bound.stop("q").log_weight(bound.draw(noise)))
        return Terms(value, value)


class OwnDrawInBaseline(_Wrong):
    """The baseline is the mean of all draws, the own one included."""

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        value = bound.reduce(log_w)
        signal = stop_gradient(log_w - log_w.mean(0)) / len(log_w)
        return Terms(value + (signal * bound.log_prob(draws)).sum(0), value)


class NoDirectTerm(_Wrong):
    """A score function that forgets what the parameters of the model do directly."""

    def terms(self, noise, bound, carry):
        right = gradients.LeaveOneOut().terms(noise, bound, carry)
        return Terms(right.surrogate - right.value, right.value)


class ReportsSurrogate(_Wrong):
    """The value is the surrogate's."""

    def terms(self, noise, bound, carry):
        right = gradients.LeaveOneOut().terms(noise, bound, carry)
        return Terms(right.surrogate, right.surrogate)


def _cell(model, family, objective, gradient, plan="IID()"):
    return CELLS[Cell(model, family, objective, gradient, plan)]


def _fails(composition, rows, reference, **kwargs):
    (samples,) = estimates(composition, rows, "control", n=10_000, sample=sampler(composition, rows, **kwargs))
    return not compare(samples, reference).within(THRESHOLD)


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        (("global", "MeanField", "ELBO()", "LeaveOneOut()"), PathWithoutEntropy()),
        (("global", "MeanField", "IWAE()", "LeaveOneOut()"), OnceReparameterised()),
        (("global", "FullRank", "CUBO()", "LeaveOneOut()"), OnceReparameterised()),
        (("local, minibatch", "Amortised(MeanField)", "IWAE()", "LeaveOneOut()"), OnceReparameterised()),
        (("global", "Bernoulli", "ELBO()", "LeaveOneOut()"), gradients.Pathwise()),
        (("global", "Product(MeanField, Bernoulli)", "ELBO()", "LeaveOneOut()"), gradients.Pathwise()),
        (("global, not differentiable", "MeanField", "ELBO()", "LeaveOneOut()"), gradients.Pathwise()),
        (("global", "Bernoulli", "ELBO()", "LeaveOneOut()"), OwnDrawInBaseline()),
        (("global", "Categorical", "ELBO()", "LeaveOneOut()"), NoDirectTerm()),
        (("local, minibatch", "Bernoulli", "IWAE()", "LeaveOneOut()"), ReportsSurrogate()),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, AbstractSimple) else " ".join(v),
)
def test_a_wrong_gradient_fails(cell, wrong):
    composition, rows = _cell(*cell)
    assert _fails(composition._replace(gradient=wrong), rows, exact(composition, rows))


@pytest.mark.parametrize(
    ("model", "family", "gradient"),
    [
        ("global, minibatch", "Bernoulli", "ScoreFunction('none')"),
        ("local, minibatch", "Amortised(Bernoulli)", "LeaveOneOut()"),
        ("global and local, minibatch", "GlobalLocal(MeanField, Table)", "Pathwise()"),
    ],
)
def test_a_minibatch_that_is_not_scaled_up_fails(model, family, gradient):
    composition, rows = _cell(model, family, "ELBO()", gradient)
    assert _fails(composition, rows, exact(composition, rows), scaled=False)


def test_the_log_of_a_minibatch_weight_fails():
    refused, rows = _cell("global, minibatch", "Bernoulli", "IWAE()", "LeaveOneOut()")
    rows = rows | {"x": 4 * rows["x"]}  # rows that differ: the bias is that of the minibatch's variance
    assert _fails(refused, rows, exact(refused, rows))


def test_dependent_draws_in_a_nonlinear_objective_fail():
    right, rows = _cell("global", "MeanField", "IWAE()", "Pathwise()")
    assert _fails(right._replace(plan=Antithetic()), rows, exact(right, rows))


def test_a_reference_off_by_a_little_fails():
    composition, rows = _cell("global", "MeanField", "ELBO()", "Pathwise()")
    reference = exact(composition, rows)
    (samples,) = estimates(composition, rows, "control", n=10_000)
    assert compare(samples, reference).within(THRESHOLD)
    off = reference._replace(value=reference.value + 0.1)
    assert not compare(samples, off).within(THRESHOLD)
