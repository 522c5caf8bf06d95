"""Rows that are several arrays: pictures show the one that the model draws, or none."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import jensen as jn
from jensen.errors import ModelError
from jensen.models import LatentVariable
from jensen.models.likelihoods import BernoulliLikelihood, GaussianLikelihood, PoissonLikelihood
from jensen.nets import MLP
from jensen.report import decoder

RNG = np.random.default_rng(0)
REAL, BITS = RNG.normal(10, 1, (20, 3)), RNG.integers(0, 2, (20, 3)).astype(float)
COUNTS = RNG.poisson(4.0, (20, 3))
GAUSS, BERNOULLI, POISSON = GaussianLikelihood((3,)), BernoulliLikelihood((3,)), PoissonLikelihood((3,))


@pytest.mark.parametrize(
    ("likelihood", "rows", "want"),
    [
        (GAUSS, {"a_mask": BITS, "x": REAL}, REAL),
        (GAUSS, {"x": REAL, "exposure": np.ones(20)}, REAL),
        (GAUSS, (np.ones((20, 7)), REAL, BITS > 0), REAL),
        (BERNOULLI, {"age": REAL, "x": BITS}, BITS),
        (POISSON, {"area": np.full(20, 2.0), "n": COUNTS}, COUNTS),
        (GAUSS, REAL, REAL),
        (GAUSS, {"x": REAL, "weight": REAL + 1}, None),
        (BERNOULLI, {"x": BITS, "mask": np.ones((20, 3))}, None),
        (GAUSS, {"only": np.ones((20, 2))}, None),
    ],
)
def test_which_array_is_drawn(likelihood, rows, want):
    found = likelihood.observed(rows)
    assert found is None if want is None else found is want or np.array_equal(found, want)


class Weighted(GaussianLikelihood):
    def log_prob(self, outputs, x):
        return super().log_prob(outputs, x["x"]) * x["weight"][0]


class Told(Weighted):
    def observed(self, rows):
        return rows["x"]


class Whole(Weighted):
    def sample(self, key, outputs):
        return {"x": super().sample(key, outputs), "weight": jnp.ones(3)}


class Encoder(eqx.Module):
    net: MLP

    def __call__(self, row):
        return self.net(row["x"])


def fitted(likelihood):
    rows = {"weight": RNG.uniform(1, 2, (60, 3)), "x": RNG.normal(5, 1, (60, 3))}
    model = LatentVariable(1, MLP(jr.key(0), 1, (), 3), likelihood)
    family = jn.families.Amortised(encoder=Encoder(MLP(jr.key(1), 3, (), 2)))
    return jn.fit(model, rows, family=family, n_steps=60, optimizer=0.05, progress=False), rows


@pytest.mark.parametrize(("cls", "shown"), [(Weighted, False), (Told, True)])
def test_pictures_show_it_or_none(cls, shown):
    fit, rows = fitted(cls((3,)))
    x, means = decoder.reconstructions(fit, 60)
    assert means.shape == (60, 3)
    assert x is None if not shown else np.allclose(x, rows["x"])
    labels = [line.get_label() for ax in fit.plot("samples").axes for line in ax.get_lines()]
    assert ("mean of the data" in labels) == shown
    written = " ".join(t.get_text() for ax in fit.plot("predictive").axes for t in ax.texts)
    assert ("likelihood.observed" in written) != shown
    fit.plot("latent")
    with pytest.raises(ModelError, match=r"the model draws rows of shape[\s\S]*whose `sample` returns a row"):
        fit.bracket(4, 4, n_temperatures=5)


def test_a_model_that_draws_whole_rows_is_bracketed():
    fit, _ = fitted(Whole((3,)))
    found = fit.bracket(20, 8, n_temperatures=20)
    assert np.isfinite(found.values).all() and found.mean < found.upper.mean() + 0.5
