"""Where gradient and variance vanish, what is left is rounding, and that is no bias; a bias is still one."""

import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen import families as F
from jensen import gradients as G
from jensen.lab.size import term_sizes
from jensen.lab.subject import prepare

QUICK = {"plans": "IID", "seconds": 0.3, "n_steps": 1500, "n_repeats": 200, "at": ("fit",)}
PRECISION = jnp.linalg.inv(jnp.array([[4.0, 1.9], [1.9, 1.0]]))
HALF = jnp.array([0.4, -1.0, 2.0])


class Leaning(G.DoublyReparameterised):
    """With a constant added to its gradient, and the claim that it is unbiased."""

    def terms(self, noise, bound, carry):
        terms = super().terms(noise, bound, carry)
        return terms._replace(surrogate=terms.surrogate + 1e-3 * bound.q.log_scale.sum())


class LeaningScore(G.LeaveOneOut):
    def terms(self, noise, bound, carry):
        terms = super().terms(noise, bound, carry)
        return terms._replace(surrogate=terms.surrogate + 1e-2 * bound.q.logits.sum())


PATHS = {"landing": G.DoublyReparameterised(), "path": G.Pathwise(), "leaning": Leaning()}
CASES = {
    "a large constant": (lambda z: 1e4 - 3 * ((z - 3) ** 2).sum(), (3,), F.MeanField(scale=1.0), PATHS),
    "steep": (lambda z: -3e4 * ((z - 3) ** 2).sum(), (2,), F.MeanField(scale=0.01), PATHS),
    "correlated": (lambda z: -0.5 * (z - 1) @ PRECISION @ (z - 1), (2,), F.FullRank(scale=1.0), PATHS),
    "bits": (
        lambda b: 50.0 + (b * HALF).sum(), (3,), F.Bernoulli(),
        {"exact": G.Enumerate(), "loo": G.LeaveOneOut(), "muprop": G.ARM(), "leaning": LeaningScore()},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_rounding_is_no_bias_and_a_bias_is(name):
    fn, shape, family, estimators = CASES[name]
    lab = jn.gradient_lab(jn.models.LogDensity(fn, shape), family=family, estimators=estimators, **QUICK)
    seen = {r.estimator: r.bias.seen for r in lab.readings}
    assert seen.pop("leaning"), lab
    assert len(seen) >= 2 and not any(seen.values()), lab


def test_sizes_are_those_of_the_terms_without_cancellation():
    """log p = -k z^2 / 2 at q = N(0, 1 / k), where the mean gradient is 0: in the mean of q d log p / d mu = -k z, and
    d log q / d mu along the path is 0; rows of opposite sign do not cancel."""
    k = 25.0
    model = jn.models.LogDensity(lambda z: -0.5 * k * (z**2).sum(), (4,))
    subject = prepare(model, None, F.MeanField(scale=k**-0.5), None, None, 0)
    sizes = term_sizes(subject, None, subject.first)
    np.testing.assert_allclose(sizes[:4].mean(), k**0.5, rtol=0.3)
    rows = jnp.array([[-3.0], [3.0]] * 8)
    sums = jn.models.LogDensity(lambda z, x: (z * x).sum(), (1,), local=True)
    subject = prepare(sums, rows, F.Amortised(F.MeanField(scale=1.0), hidden=()), None, None, 0)
    assert (term_sizes(subject, None, subject.first) > 1).any()
