"""The gradient lab: variances against closed forms, biases found, evaluations counted, the rest of its interface.

Statistical tests allow five standard errors (about 1e-6 each), with a wrong closed form as the negative control.
"""

import json
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.lax import stop_gradient
from typer.testing import CliRunner

import jensen as jn
from jensen.batch import Batch
from jensen.cli.main import app
from jensen.fit.defaults import exported
from jensen.gradients import DoublyReparameterised, Enumerate, LeaveOneOut, Pathwise, ScoreFunction, plans
from jensen.gradients.base import AbstractSimple, Parts, Terms
from jensen.gradients.requirements import FRESH, REPARAMETERISED, SCORE
from jensen.lab.count import evaluations
from jensen.lab.lab import gradient_lab

T, LOGIT, K = 0.45, 0.8, 4
P = 1 / (1 + np.exp(-LOGIT))


class Weak(AbstractSimple):
    """A score function that is a tenth too small, and says that it is unbiased."""

    requires: ClassVar = (SCORE, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        score = (0.9 * stop_gradient(log_w) * bound.log_prob(draws)).mean(0)
        return Terms(score + log_w.mean(0), log_w.mean(0))


class Short(Weak):
    """The same fault along the path."""

    requires: ClassVar = (REPARAMETERISED,)

    def terms(self, noise, bound, carry):
        value = bound.log_weight(bound.draw(noise)).mean(0)
        return Terms(0.9 * value, value)


class Broken(Weak):
    """Passes the judge, and fails when traced."""

    def terms(self, noise, bound, carry):
        raise ValueError("not today")


def guess():
    """E[(b - t)^2], b ~ Bernoulli: with the entropy in closed form, the log-weight is (b - t)^2 itself."""
    return jn.models.LogDensity(lambda b: ((b - T) ** 2).sum(), (1,))


def bernoulli():
    return jn.families.Bernoulli([LOGIT])


def one_by_name(lab, name, point="start"):
    (found,) = [r for r in lab.readings if (r.estimator, r.point) == (name, point)]
    return found


def near(truth, bias):
    """Within five standard errors; the interval's ends are two away from its middle."""
    return abs(truth - (bias.low + bias.high) / 2) < 2.5 * (bias.high - bias.low) / 2


def reinforce_variance(k):
    """Var of mean_k f(b_k) (b_k - p)."""
    f = np.array([T**2, (1 - T) ** 2])
    p, s = np.array([1 - P, P]), np.array([-P, 1 - P])
    return ((p * (f * s) ** 2).sum() - (p * f * s).sum() ** 2) / k


def leave_one_out_variance(k):
    """f is linear in a binary b, f(1) - f(0) = 1 - 2t: the estimate is (1 - 2t) times the sample variance of b."""
    sigma2 = P * (1 - P)
    mu4 = sigma2 * (1 - 3 * sigma2)
    return (1 - 2 * T) ** 2 * (mu4 - sigma2**2 * (k - 3) / (k - 1)) / k


@pytest.fixture(scope="module")
def toy():
    chosen = {"none": ScoreFunction("none"), "loo": LeaveOneOut(), "exact": Enumerate(), "weak": Weak(), "no": Broken()}
    return gradient_lab(
        guess(), bernoulli(), objective=jn.objectives.ELBO("entropy"), estimators=chosen | {"path": Pathwise()},
        plans=plans.IID(), n_samples=K, n_repeats=20_000, seconds=4.0, n_steps=60,
    )  # fmt: skip


def test_variances_in_closed_form(toy):
    for name, closed in (("none", reinforce_variance), ("loo", leave_one_out_variance)):
        reading = one_by_name(toy, name)
        off = lambda variance, r=reading: abs(r.variance - variance) / r.variance_se
        assert off(closed(K)) < 5, name
        assert off(closed(K + 1)) > 5, name  # negative control
        assert reading.groups["family.logits"]["variance"] == pytest.approx(reading.variance, rel=1e-4)
    assert one_by_name(toy, "exact").variance == 0


def test_bias_is_found(toy):
    for point in toy.points:
        assert not any(one_by_name(toy, n, point).bias.seen for n in ("none", "loo", "exact"))
    weak = one_by_name(toy, "weak")
    assert weak.bias.source == "exact"
    assert weak.bias.seen
    assert "gradient" in weak.bias.words()
    # the score term is a tenth too small; the entropy's part of the gradient is exact
    p, s, f = np.array([1 - P, P]), np.array([-P, 1 - P]), np.array([T**2, (1 - T) ** 2])
    bias = 0.1 * abs((p * f * s).sum())
    assert near(bias, weak.bias)
    assert not near(2 * bias, weak.bias)  # negative control
    assert toy.best_name[0] != "weak"
    assert toy.ranked()[-1][0] == "weak"


def test_bias_without_an_exact_reference():
    """A normal q: what the library knows to be unbiased is the reference, and a wrong newcomer does not spoil it."""
    model = jn.models.LogDensity(lambda z: -0.5 * ((z - 3.0) ** 2).sum() + jnp.cos(z).sum(), (2,))
    chosen = [Pathwise(), DoublyReparameterised(), Short()]
    lab = gradient_lab(
        model, "mean-field", estimators=chosen, plans="iid", at="start", n_repeats=20_000, seconds=3.0
    )  # fmt: skip
    assert not one_by_name(lab, "Pathwise").bias.seen
    assert not one_by_name(lab, "DoublyReparameterised").bias.seen
    short = one_by_name(lab, "Short").bias
    assert short.seen
    assert "Short" not in short.source
    assert "Pathwise" in short.source
    assert near(0.1 * short.of, short)
    assert lab.best_name[0] != "Short"


def test_ranking_and_recommendation(toy):
    """An exact gradient of two states beats draws; its name leads, and the reasons are said."""
    assert toy.best_name == ("exact", "IID")
    assert type(toy.best) is Enumerate
    assert type(toy.best_plan) is plans.IID
    assert toy.scores[toy.best_name] == 1
    assert toy.recommendation.startswith("exact with IID draws")
    noisy, less = one_by_name(toy, "none"), one_by_name(toy, "loo")
    assert less.variance < noisy.variance
    assert less.snr > noisy.snr
    assert noisy.efficiency == pytest.approx(1 / (noisy.variance * noisy.seconds))
    table = toy.table()
    assert table.index[0] == ("start", "exact", "IID")
    assert (table["n_samples"] == K).all()
    assert (table["seconds"] > 0).all()
    assert set(toy.groups().reset_index()["parameters"]) == {"family", "family.logits"}
    assert str(toy).splitlines()[0] == toy.recommendation


def test_refused_with_reasons(toy):
    why = {r.estimator: r.reason for r in toy.refused}
    assert set(why) == {"no", "path"}
    assert "ValueError: not today" in why["no"]
    assert "transform(noise) is differentiable" in why["path"]
    assert "not today" in str(toy)


def test_json_and_plot(toy, tmp_path):
    from jensen.report.style import to_png

    text = toy.to_json(tmp_path / "lab.json")
    found = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert found == toy.to_dict() == json.loads((tmp_path / "lab.json").read_text())
    assert found["best"] == {"estimator": "exact", "plan": "IID"}
    assert len(found["readings"]) == len(toy.readings) == 8
    assert to_png(toy.plot(), 50).startswith(b"\x89PNG")


# ---- evaluations ----------------------------------------------------------------------------------------------------
class Scanning(AbstractSimple):
    """Evaluates in a scan, and once more under a derivative: seven times a cell."""

    requires: ClassVar = ()
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None

    def terms(self, noise, bound, carry):
        draws = bound.draw(noise)
        total = jax.lax.scan(lambda s, _: (s + bound.log_weight(draws).mean(0), None), jnp.zeros(bound.plate), None, 6)[
            0
        ]
        slope = jax.grad(lambda d: bound.log_weight(d).sum())(draws)
        return Terms(total, total + 0 * slope.sum())


def test_evaluations_are_counted():
    data, n_latents = jnp.ones((5, 2)), 3
    decoder = lambda z: jnp.tanh(z[:2])
    model = jn.models.LatentVariable(jn.families.Bernoulli(jnp.zeros(n_latents)), decoder, "gaussian", shape=(2,))
    family = jn.families.Amortised(jn.families.Bernoulli(), hidden=(4,)).bind(model.latents, data, jr.key(0))
    elbo = jn.objectives.ELBO()
    count = lambda g, k, objective=elbo: evaluations(Parts(model, family, g), objective, plans.IID(), Batch(data), k)
    assert count(LeaveOneOut(), 4) == 4 * 5
    assert count(ScoreFunction("regression"), 3) == 3 * 5
    assert count(Enumerate(), 4) == 2**n_latents * 5
    assert count(LeaveOneOut(), 4, jn.objectives.ELBO("kl")) == 4 * 5  # only the likelihood is evaluated
    assert count(Scanning(), 2) == 7 * 2 * 5
    whole = jn.models.LogDensity(lambda z: -(z**2).sum(), (2,), log_likelihood=lambda z, row: (z * row).sum())
    q = jn.families.MeanField().bind(whole.latents, None, jr.key(0))
    assert evaluations(Parts(whole, q, Pathwise()), jn.objectives.ELBO(), plans.IID(), Batch(data), 6) == 6


# ---- minibatches, plans, own parameters -----------------------------------------------------------------------------
class Decoder(eqx.Module):
    weight: jax.Array

    def __call__(self, z):
        return self.weight @ z


def test_minibatches_and_plans(compilations):
    """A latent a row: groups by array, the minibatch's own variance, several plans; a second lab compiles nothing."""
    data = jr.normal(jr.key(1), (40, 2)) * jnp.array([3.0, 0.5])
    model = jn.models.LatentVariable(2, Decoder(jnp.eye(2)), "gaussian", shape=(2,))
    family = jn.families.Amortised(hidden=(3,))
    run = lambda: gradient_lab(
        model, family, data=data, batch_size=10, estimators=Pathwise, plans=[plans.IID(), plans.Antithetic()],
        at=("start", 20), n_repeats=2000, seconds=1.0,
    )  # fmt: skip
    lab = run()
    assert lab.points == ["start", "step 20"]
    for r in lab.readings:
        assert r.minibatch > r.variance > 0
        assert {"model", "family", "model.decoder.weight"} <= set(r.groups)
        parts = [r.groups[g]["variance"] for g in ("model", "family")]
        assert sum(parts) == pytest.approx(r.variance, rel=1e-3)
        assert "not tested" in r.bias.words()  # alone, there is nothing to compare it with
    assert "10 of 40 rows" in str(lab)
    assert compilations(run)[1] == 0


@pytest.mark.slow  # a compilation each
def test_every_exported_estimator_has_its_say():
    """Each is measured or refused; none of the library's own that declares no bias shows one."""
    from jensen import gradients
    from jensen.fit.defaults import exported
    from jensen.gradients.base import AbstractEstimator

    model = jn.models.LogDensity(lambda b: -2.0 * ((b - 0.3) ** 2).sum() + b[0] * b[1], (2,))
    lab = gradient_lab(model, jn.families.Bernoulli([0.4, -0.9]), plans="iid", at="start", n_repeats=1000, seconds=2.0)
    seen = {r.estimator.partition("(")[0] for r in lab.readings} | {r.estimator.partition("(")[0] for r in lab.refused}
    assert {n for n, c in exported(gradients).items() if issubclass(c, AbstractEstimator)} == seen
    assert all(r.reason for r in lab.refused)
    assert {r.estimator for r in lab.readings if r.declared_unbiased and r.bias.seen} == set()
    assert lab.best is not None


def test_wrong_calls():
    for wrong in ({"at": ("middle",)}, {"n_repeats": 1}, {"estimators": "nope"}, {"seconds": -1}, {"batch_size": 0}):
        with pytest.raises(jn.OptionError):
            gradient_lab(guess(), bernoulli(), **wrong)
    assert jn.gradient_lab is gradient_lab


# ---- in a fit, and on the command line ------------------------------------------------------------------------------
def test_fit_with_the_gradient_on_trial():
    model = jn.models.LogDensity(lambda b: 2.0 * (b * jnp.array([1.0, -1.0])).sum() - b[0] * b[1], (2,))
    fit = jn.fit(model, family=jn.families.Bernoulli(), gradient="auto", n_steps=300, n_draws=256)
    assert fit.options["gradient"] in exported(jn.gradients)
    assert "on trial" in fit.options["gradient_chosen"]
    exact = [np.exp(2.0 * i - 2.0 * j - i * j) for i in (0, 1) for j in (0, 1)]
    assert fit.elbo == pytest.approx(np.log(np.sum(exact)), abs=0.05)


MODEL = """
import jensen as jn
coin = jn.models.LogDensity(lambda b: -3 * ((b - 0.3) ** 2).sum(), (2,))
"""


def test_command(tmp_path):
    (tmp_path / "coin.py").write_text(MODEL)
    base = ["gradients", f"{tmp_path}/coin.py:coin", "--family", "bernoulli", "--seconds", "0.3", "--n-steps", "20"]
    base += ["--gradient", "leave-one-out", "--gradient", "pathwise", "--plan", "iid"]
    call = lambda *more: CliRunner().invoke(app, [*base, *more])
    done = call("--json", "--plot", str(tmp_path / "lab.png"))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["best"]["estimator"] == "LeaveOneOut"
    assert [r["estimator"] for r in found["refused"]] == ["Pathwise"] * len(found["refused"])
    assert (tmp_path / "lab.png").read_bytes().startswith(b"\x89PNG")
    shown = call()
    assert shown.exit_code == 0
    assert "LeaveOneOut" in shown.stdout
    for more in (["--plot", "lab.pdf"], ["--objective", "nope"], ["--n-samples", "0"]):
        wrong = call(*more)
        assert wrong.exit_code == 2
        assert "Traceback" not in wrong.output
        assert "instead" in wrong.stderr
