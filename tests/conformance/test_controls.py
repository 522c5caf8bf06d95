"""Wrong gradients must fail the test that right ones pass."""

from typing import ClassVar

import jax
import pytest
from cover import composed
from estimate import THRESHOLD, compare, estimates, sampler
from jax.lax import stop_gradient
from reference import exact

from jensen import gradients
from jensen.cells import Cell
from jensen.families.relaxation import Binary
from jensen.gradients.base import AbstractEstimator, AbstractSimple, Terms
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


class ConditionalNoiseShared(_Wrong):
    """REBAR whose conditional draw is made of the noise of the draw itself: it is not independent of b."""

    def terms(self, noise, bound, carry):
        kind = Binary()

        def cell(m, q, x, u):
            b = kind.hard(kind.reparameterise(q.logits, u))
            given = lambda a: kind.given(a, b, self.conditional(q.logits, u))
            c = lambda z: bound.objective.log_weight(m, kind.soft(z, 0.5), q.log_ratio(kind.soft(z, 0.5)), x)
            slope = jax.grad(lambda a: c(kind.reparameterise(a, u)) - c(given(a)))(q.logits)
            f = bound.objective.log_weight(m, b, q.log_ratio(b), x)
            return f, (f - c(given(q.logits))) * (b - kind.mean(q.logits)) + slope

        log_w, signal = bound.stop("q").map(cell, noise)
        along = bound.map(lambda m, q, x, s: (s * q.logits).sum(), stop_gradient(signal))
        return Terms((log_w + along).mean(0), bound.reduce(log_w))

    def conditional(self, logits, u):
        return u


class ConditionalNoiseFound(ConditionalNoiseShared):
    """The same with the right noise."""

    def conditional(self, logits, u):
        return Binary().noise_given(logits, Binary().reparameterise(logits, u))


class PathForgotten(_Wrong):
    """REBAR that subtracts the control variate and does not add its mean back along the path."""

    def terms(self, noise, bound, carry):
        kind = Binary()
        y = stop_gradient(bound.map(lambda m, q, x, u: kind.soft(kind.reparameterise(q.logits, u), 0.5), noise))
        draws = stop_gradient(bound.draw(noise))
        log_w = bound.log_weight(draws)
        signal = stop_gradient(log_w - bound.log_weight(y))
        return Terms((log_w + signal * bound.log_prob(draws)).mean(0), bound.reduce(log_w))


def _cell(model, family, objective, gradient, plan="IID()"):
    return composed(Cell(model, family, objective, gradient, plan))


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
        (("global", "Bernoulli", "ELBO()", "LeaveOneOut()"), ConditionalNoiseShared()),
        (("global", "Bernoulli", "ELBO()", "LeaveOneOut()"), PathForgotten()),
        (("global", "Bernoulli", "ELBO()", "LeaveOneOut()"), gradients.StraightThrough()),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, AbstractEstimator) else " ".join(v),
)
def test_a_wrong_gradient_fails(cell, wrong):
    composition, rows = _cell(*cell)
    assert _fails(composition._replace(gradient=wrong), rows, exact(composition, rows))


def test_the_right_conditional_noise_passes():
    composition, rows = _cell("global", "Bernoulli", "ELBO()", "LeaveOneOut()")
    assert not _fails(composition._replace(gradient=ConditionalNoiseFound()), rows, exact(composition, rows))


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
