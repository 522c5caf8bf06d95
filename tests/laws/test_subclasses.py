"""Parts of a user's own: a subclass of a built-in part stays what it is, and a family written by the book works."""

import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import jensen as jn
from jensen import families as F
from jensen import gradients as G
from jensen import objectives as O
from jensen.cell_examples import exported
from jensen.errors import ModelError
from jensen.facts import Fact
from jensen.families import base
from jensen.families.consistent import check_halves
from jensen.models.components import Bernoulli, Categorical, Poisson
from jensen.models.factor import LinearGaussian
from jensen.models.gaussian_components import Gaussians

EXPORTED = exported(F, base.AbstractFamily)
ROWS, KEY = jnp.arange(15.0).reshape(5, 3), jr.key(0)
FIT = {"progress": False, "n_draws": 512}


def spec(n=2):
    return jax.ShapeDtypeStruct((n,), jnp.result_type(float))


def own(cls):
    """A subclass with a field of its own, and the parent's methods written anew as they are."""
    body = {"tag": "mine", "__annotations__": {"tag": str}}
    methods = ("transform", "log_prob") if issubclass(cls, base.AbstractDistribution) else ("__call__",)
    for name in methods:
        body[name] = lambda self, *args, _name=name: getattr(cls, _name)(self, *args)
    return type(f"My{cls.__name__}", (cls,), body)


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_a_subclass_survives_being_sized(name):
    mine = own(EXPORTED[name])
    arguments = {"Product": ({"a": F.MeanField(), "b": F.MeanField()},), "Univariate": ("gamma",)}.get(name, ())
    named = {"a": spec(), "b": spec()}
    latents = {"Product": named, "Layers": named, "Autoregressive": named}.get(name, spec())
    latents = ({"a": spec()}, {"b": spec()}) if name == "GlobalLocal" else latents
    q = mine(*arguments).bind(latents, {"index": jnp.arange(5)} if name == "GlobalLocal" else ROWS, KEY)
    assert type(q) is mine and q.tag == "mine"
    assert type(q.sharpened()) is mine
    assert jax.tree.leaves(q)


class Positive(F.MeanField):
    """softplus of a Gaussian."""

    def transform(self, noise):
        return jax.nn.softplus(super().transform(noise))

    def log_prob(self, draw):
        u = jnp.log(jnp.expm1(draw))
        return super().log_prob(u) - jax.nn.log_sigmoid(u).sum()


class Scaled(F.FullRank):
    """With a trained array of its own."""

    stretch: jax.Array

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.stretch = jnp.zeros(())

    def transform(self, noise):
        return super().transform(noise) * jnp.exp(self.stretch)

    def log_prob(self, draw):
        return super().log_prob(draw * jnp.exp(-self.stretch)) - self.layout.size * self.stretch


class Ridge(F.MeanField):
    """q(. | x) by a distribution that is called: its mean is a linear function of the row."""

    slope: jax.Array

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.slope = jnp.zeros(())

    def __call__(self, x=None):
        return eqx.tree_at(lambda q: q.loc, self, self.loc + self.slope * jnp.ravel(x))


def test_what_a_subclass_writes_anew_is_what_is_fitted():
    log_gamma = jn.models.LogDensity(lambda z: jnp.where(z > 0, 3 * jnp.log(z) - 2 * z, -jnp.inf).sum(), (2,))
    fit = jn.fit(log_gamma, family=Positive(scale=0.5), n_steps=500, **FIT)
    assert type(fit.family) is Positive
    draws = np.asarray(fit.sample(4000))
    assert (draws > 0).all() and abs(draws.mean() - 2.0) < 0.15  # gamma(4, 2)
    z = fit.sample(4)
    np.testing.assert_allclose(fit.log_prob(z), [fit.family.log_prob(jnp.asarray(one)) for one in z], rtol=1e-5)
    with pytest.raises(jn.errors.IncompatibleComposition, match="the entropy has a closed form"):
        jn.fit(log_gamma, family=Positive(), objective=O.ELBO("entropy"), n_steps=2, **FIT)


def test_an_array_of_its_own_is_trained():
    wide = jn.models.LogDensity(lambda z: -0.5 * ((z - 1) ** 2).sum() / 9, (2,))
    fit = jn.fit(wide, family=Scaled(), n_steps=400, **FIT)
    assert type(fit.family) is Scaled and abs(float(fit.family.stretch)) > 0.1
    assert np.asarray(fit.sample(4000)).std() == pytest.approx(3.0, rel=0.1)


def test_a_distribution_that_is_called_reads_its_row():
    model = jn.models.LogDensity(lambda z, x: -0.5 * (z**2 + (x - z) ** 2).sum(), (1,), local=True)
    x = np.linspace(-3, 3, 20)[:, None]
    fit = jn.fit(model, x, family=Ridge(scale=0.7), n_steps=500, optimizer=0.03, **FIT)
    assert type(fit.family) is Ridge
    np.testing.assert_allclose(np.asarray(fit.sample(2000)).mean(0), x / 2, atol=0.2)


class Shifted(F.MeanField):
    def transform(self, noise):
        return super().transform(noise) + 5.0


class Stretched(F.LowRank):
    def log_prob(self, draw):
        return super().log_prob(draw) + 0.5


class Bent(F.SinhArcsinh):
    def transform(self, noise):
        return super().transform(noise) ** 3


class Louder(F.RealNVP):
    def log_prob(self, draw):
        return super().log_prob(0.5 * draw)


@pytest.mark.parametrize("family", [Shifted(), Bent(), Louder()])
def test_half_a_law_is_refused(family):
    model = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
    with pytest.raises(ModelError, match="are of two laws"):
        jn.fit(model, family=family, n_steps=2, **FIT)
    check_halves(own(type(family).__mro__[1])().bind(spec(), None, KEY))  # both halves, as the parent has them


def test_a_half_that_agrees_is_not():
    class Slower(F.FullRank):
        def log_prob(self, draw):
            return super().log_prob(draw)

    check_halves(Slower().bind(spec(), None, KEY))
    check_halves(F.Amortised(Slower()).bind(spec(), ROWS, KEY))
    check_halves(Stretched().bind(spec(), None, KEY))  # more noise than coordinates: not tested


def test_promises_of_another_law_are_withdrawn():
    lost = F.MeanField.facts - Positive.facts
    assert lost == {
        Fact.ENTROPY, Fact.MOMENTS, Fact.MOMENT_LOG_PROB, Fact.WEAK_DERIVATIVE, Fact.INDEPENDENT_COORDINATES,
    }  # fmt: skip
    assert Positive.transform_and_log_ratio is base.AbstractDistribution.transform_and_log_ratio

    class Heir(Positive):
        pass

    class Knows(F.MeanField):
        def log_prob(self, draw):
            return super().log_prob(draw)

        def entropy(self):
            return super().entropy()

    class Says(Positive):
        facts = F.MeanField.facts

    assert (
        Heir.facts == Positive.facts
        and Fact.ENTROPY in Knows.facts - Positive.facts
        and Says.facts == F.MeanField.facts
    )
    assert Fact.MOMENTS not in own(F.GaussianCopula)().facts and Fact.LAYERS not in own(F.Bernoulli)().facts
    assert Fact.REPARAMETERISED not in F.Mixture(component=Positive()).facts  # its path is that of Gaussians
    with pytest.raises(ModelError, match="neither a Bernoulli nor a categorical"):
        F.relaxed(own(F.Bernoulli)(jnp.zeros(2)))
    altered = [c for c in EXPORTED.values() if c.__module__.startswith("jensen") and _inherits_nothing(c)]
    assert not altered  # of the library's own families none is touched


def _inherits_nothing(cls):
    return "transform_and_log_ratio" in vars(cls) and cls.transform_and_log_ratio is vars(
        base.AbstractDistribution
    ).get("transform_and_log_ratio")


class Soft(O.ELBO):
    def reduce(self, log_w):
        return jax.nn.logsumexp(log_w) - jnp.log(log_w.shape[0])


class Warm(O.ELBO):
    def log_weight(self, model, latent, log_ratio, x):
        return 0.5 * super().log_weight(model, latent, log_ratio, x)


class Declared(O.ELBO):
    facts = frozenset({Fact.LINEAR})

    def reduce(self, log_w):
        return 2 * log_w.mean()


def test_objectives_keep_what_they_did_not_change():
    assert Fact.LINEAR not in Soft().facts and len(Soft().requires) == 3
    assert Warm().facts == {Fact.LINEAR} and Declared().facts == {Fact.LINEAR}
    assert O.ELBO().facts == {Fact.LINEAR, Fact.WHOLE_WEIGHT} and len(O.ELBO().requires) == 1


@pytest.mark.parametrize("cls", [G.NVIL, G.KernelRatio, G.Adversarial, G.RELAX, G.LAX])
def test_estimators_keep_their_class(cls):
    mine = type(f"My{cls.__name__}", (cls,), {"tag": "mine", "__annotations__": {"tag": str}})
    made = mine().bind(spec(), ROWS, KEY)
    assert type(made) is mine and made.tag == "mine"


@pytest.mark.parametrize("part", [Bernoulli, Poisson, Categorical, Gaussians, lambda: LinearGaussian(1)])
def test_em_models_keep_their_class(part):
    parent = type(part())
    mine = type(f"My{parent.__name__}", (parent,), {})
    made = (mine(1) if parent is LinearGaussian else mine()).bound_to(np.array([[0.0, 1.0], [np.nan, 0.0]]))
    assert type(made) is mine and made.missing


def test_the_instruction_for_writing_a_family_followed_to_the_letter():
    text = base.__doc__
    code = textwrap.dedent(text[text.index("    class ") :])
    names = {"AbstractPlain": base.AbstractPlain, "PLAIN": base.PLAIN, "Fact": Fact, "eqx": eqx, "jax": jax, "jnp": jnp}
    names |= {"Array": jax.Array, "Layout": jn.tree.Layout, "Uniform": jn.families.noise.Uniform}
    exec(code, names)
    logistic = names["Logistic"]
    model = jn.models.LogDensity(
        lambda z: -((z["a"] - 1) / 2 + 2 * jax.nn.softplus(-(z["a"] - 1) / 2)).sum(), {"a": (2,)}
    )
    for family in (logistic(), logistic):
        fit = jn.fit(model, family=family, n_steps=500, **FIT)
        assert str(fit.verdict) == "RELIABLE", fit.reasons
    draws = np.asarray(fit.sample(8000)["a"])
    assert draws.mean() == pytest.approx(1.0, abs=0.15)
    assert draws.std() == pytest.approx(2 * np.pi / np.sqrt(3), rel=0.05)
    assert fit.log_prob({"a": np.ones((1, 2))})[0] == pytest.approx(2 * np.log(1 / 8), abs=0.15)
