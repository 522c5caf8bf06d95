"""NumPyro models: the log density equals numpyro's own, or a formula written by hand, to rounding."""

import importlib.util
import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import random_eqx_module
from numpyro.distributions import constraints
from numpyro.infer.reparam import TransformReparam
from numpyro.infer.util import log_density as numpyro_log_density
from numpyro.infer.util import potential_energy
from numpyro.primitives import mutable

from jensen.batch import Batch
from jensen.errors import CheckpointError, DataError, ModelError
from jensen.facts import Fact
from jensen.models.adapters import from_numpyro
from jensen.models.supports import Site, decode, encode

needs_funsor = pytest.mark.skipif(importlib.util.find_spec("funsor") is None, reason="funsor is not installed")
RNG = np.random.default_rng(0)
CALLS: list[int] = []
X, G, Y = RNG.normal(size=(20, 3)), RNG.integers(0, 5, 20), RNG.integers(0, 2, 20)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def point(model, key=1, n_rows=None):
    """A random unconstrained point; discrete sites at a random value."""
    keys = dict(
        zip([s.name for s in model.sites], jax.random.split(jax.random.key(key), len(model.sites)), strict=True)
    )

    def draw(site, a):
        if site.kind == "real":
            return jax.random.normal(keys[site.name], a.shape)
        if site.kind == "binary":
            return jax.random.bernoulli(keys[site.name], shape=a.shape).astype(float)
        n = a.shape[-1]
        return jax.nn.one_hot(jax.random.randint(keys[site.name], a.shape[:-1], 0, n), n, dtype=float)

    z = model.init_z(n_rows=n_rows)
    return {s.name: draw(s, z[s.name]) for s in model.sites}


def logistic(groups, x, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    with numpyro.plate("groups", 5):
        b = numpyro.sample("b", dist.Normal(0, scale))
    w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=b[groups] + x @ w), obs=y)


def constrained_supports():
    numpyro.sample("simplex", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    numpyro.sample("many", dist.Dirichlet(jnp.ones(3)).expand([2]))
    numpyro.sample(
        "ordered",
        dist.TransformedDistribution(dist.Normal(0, 1).expand([4]).to_event(1), dist.transforms.OrderedTransform()),
    )
    numpyro.sample("chol", dist.LKJCholesky(3, 2.0))
    numpyro.sample("corr", dist.LKJ(3, 2.0))
    numpyro.sample("cov", dist.Wishart(5.0, jnp.eye(2)))
    numpyro.sample("box", dist.Uniform(jnp.array([-1.0, 0.0]), jnp.array([1.0, 5.0])))
    numpyro.sample("angle", dist.VonMises(0.3, 2.0))
    numpyro.sample("tail", dist.Pareto(1.5, 3.0))
    numpyro.sample("below", dist.TruncatedNormal(0, 1, high=0.5))
    numpyro.sample("beta", dist.Beta(2.0, 3.0), sample_shape=(2,))
    numpyro.sample("zerosum", dist.ZeroSumNormal(1.0, (3,)))


def improper(y):
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    tau = numpyro.sample("tau", dist.ImproperUniform(constraints.positive, (), (2,)))
    numpyro.deterministic("twice", 2 * mu)
    numpyro.factor("bonus", -0.1 * mu**2 + tau.sum())
    with numpyro.plate("rows", y.shape[0]), handlers.scale(scale=3.0), handlers.mask(mask=y > 0):
        numpyro.sample("y", dist.Normal(mu, tau[0]), obs=y)


def chain(y):
    def step(x, t):
        x = numpyro.sample("x", dist.Normal(0.9 * x, 1.0))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y[t])
        return x, None

    scan(step, 0.0, jnp.arange(4))


CONTINUOUS = {
    "logistic": (logistic, (G, X), {"y": Y}),
    "supports": (constrained_supports, (), {}),
    "improper": (improper, (X[:, 0],), {}),
    "chain": (chain, (jnp.asarray(X[:4, 0]),), {}),
}


@pytest.mark.filterwarnings("ignore:Continuous inference poorly handles circular")
@pytest.mark.parametrize("name", CONTINUOUS)
def test_equals_numpyro(name):
    fn, args, kwargs = CONTINUOUS[name]
    model = from_numpyro(fn, *args, **kwargs)
    theirs, z = (lambda z: -potential_energy(fn, args, kwargs, z)), point(model)
    value, grad = jax.jit(jax.value_and_grad(lambda z: model.log_density(z, Batch())))(z)
    want, want_grad = jax.jit(jax.value_and_grad(theirs))(z)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), grad, want_grad)
    assert model.facts == {Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT}
    assert model.rows is None
    assert model.batch_size is None
    assert not model.plated
    assert {n: s.shape for n, s in model.latents.items()} == {n: a.shape for n, a in z.items()}


def test_reparametrised_model():
    def fn():
        a = numpyro.sample("a", dist.HalfNormal(1))
        numpyro.sample("x", dist.TransformedDistribution(dist.Uniform(0, 1), dist.transforms.AffineTransform(0.0, a)))

    model = from_numpyro(handlers.reparam(fn, {"x": TransformReparam()}))
    assert set(model.latents) == {"a", "x_base"}
    np.testing.assert_allclose(model.deterministics({"a": jnp.log(4.0), "x_base": jnp.array(0.0)})["x"], 2.0)


def test_network_with_priors():
    net = eqx.nn.Linear(2, "scalar", key=jax.random.key(0))

    def fn(x):
        f = random_eqx_module("net", net, prior=dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(jax.vmap(f)(x), 1.0), obs=jnp.zeros(3))

    model = from_numpyro(fn, X[:3, :2])
    assert {n: s.shape for n, s in model.latents.items()} == {"net/weight": (1, 2), "net/bias": (1,)}
    zero = dist.Normal(0, 1).log_prob(0.0)
    np.testing.assert_allclose(model.log_density(model.init_z()), 6 * zero)


def test_constrain_is_where_the_model_lives():
    model = from_numpyro(constrained_supports)
    values = jax.jit(lambda z: model.constrain(z))(point(model))
    np.testing.assert_allclose(values["simplex"].sum(), 1.0)
    assert (jnp.diff(values["ordered"]) > 0).all()
    assert values["tail"] > 1.5
    assert values["below"] < 0.5
    np.testing.assert_allclose(jnp.diag(values["corr"]), 1.0)
    assert values["many"].shape == (2, 3)
    assert values["zerosum"].shape == (3,)


def test_user_scale_leaves_the_jacobian_alone():
    """The tempered prior p(x)^3 dx; in coordinates x = e^z the density is p(e^z)^3 e^z."""

    def fn():
        with handlers.scale(scale=3.0):
            numpyro.sample("x", dist.HalfNormal(1.0))

    value = from_numpyro(fn).log_density({"x": jnp.array(0.4)}, Batch())
    np.testing.assert_allclose(value, 3 * dist.HalfNormal(1.0).log_prob(jnp.exp(0.4)) + 0.4)


# --- rows


def local(n, batch, obs):
    """The row axis is not the leading one of `z`."""
    scale = numpyro.sample("scale", dist.Gamma(2.0, 2.0))
    with numpyro.plate("d", 2, dim=-2), numpyro.plate("rows", n, subsample_size=batch, dim=-1) as i:
        z = numpyro.sample("z", dist.Gamma(2.0, scale))
        with handlers.scale(scale=0.5):
            numpyro.sample("x", dist.Normal(z, 1.0), obs=obs[:, i])
    with numpyro.plate("rows", n, subsample_size=batch, dim=-1):
        numpyro.sample("v", dist.Dirichlet(jnp.ones(3)))


OBS = RNG.normal(size=(2, 12))


def numpyro_scaled(fn, args, model, z, index):
    """numpyro's own scaled log density at given rows, its Jacobian scaled along."""
    data = {"rows": index}
    moved = {s.name: z[s.name] if s.axis is None else jnp.moveaxis(z[s.name], 0, s.axis) for s in model.sites}
    sub = handlers.substitute(handlers.seed(fn, 0), data=data)
    return -jax.jit(lambda z: potential_energy(sub, args, {}, z))(moved)


def test_minibatch_equals_numpyro_scaled():
    model = from_numpyro(local, 12, 4, OBS)
    assert model.batch_size == 4
    assert (model.rows["index"] == jnp.arange(12)).all()
    assert Fact.MINIBATCH in model.facts
    assert {n: s.shape for n, s in model.local_latents.items()} == {"z": (2,), "v": (2,)}
    assert {n: s.shape for n, s in model.latents.items()} == {"scale": ()}
    assert model.local_site_kinds == {"z": "real", "v": "real"}
    index, z = jnp.array([7, 0, 3, 11]), point(model, n_rows=4)
    value = model.log_density(z, Batch({"index": index}, jnp.full(4, 3.0)))
    # numpyro scales the Jacobian and the prior by the plate alone: the user's 0.5 is around data only
    np.testing.assert_allclose(value, numpyro_scaled(local, (12, 4, OBS), model, z, index), rtol=1e-12)


@pytest.mark.parametrize(
    "batch", [Batch(), Batch({"index": jnp.arange(12)}), Batch({"index": jnp.arange(12)}, jnp.ones(12))]
)
def test_all_rows_equal_the_model_without_subsampling(batch):
    model, whole = from_numpyro(local, 12, 4, OBS), from_numpyro(local, 12, None, OBS)
    z = point(model)
    moved = {s.name: z[s.name] if s.axis is None else jnp.moveaxis(z[s.name], 0, s.axis) for s in model.sites}
    run = jax.jit(lambda z, x: (model.log_density(z, x), model.constrain(z)))
    value, values = run(z, batch)
    want, wanted = jax.jit(lambda z: (whole.log_density(z), whole.constrain(z)))(moved)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    assert all(jnp.allclose(values[n], wanted[n]) for n in wanted)


def test_minibatches_of_any_size_add_up():
    """With weight 1, the local parts of two halves and the global part sum to the whole."""
    model = from_numpyro(local, 12, 4, OBS)
    z = point(model)

    density = jax.jit(lambda z, x: model.log_density(z, x))

    def part(a, b, w=1.0):
        rows = {n: v[a:b] if n in model.local_latents else v for n, v in z.items()}
        return density(rows, Batch({"index": jnp.arange(a, b)}, w * jnp.ones(b - a)))

    prior = part(0, 4, 0.0)
    np.testing.assert_allclose(part(0, 4) + part(4, 12) - prior, part(0, 12), rtol=1e-12)


def test_subsample_statement():
    def fn(x):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("rows", 6, subsample_size=2):
            xs = numpyro.subsample(x, event_dim=0)
            numpyro.sample("x", dist.Normal(mu, 1), obs=xs)

    x, model = X[:6, 0], from_numpyro(fn, X[:6, 0])
    order, weight = jnp.array([3, 1, 0, 5, 4, 2]), jnp.arange(6.0)
    want = dist.Normal(0, 1).log_prob(0.2) + (weight * dist.Normal(0.2, 1).log_prob(x[order])).sum()
    np.testing.assert_allclose(model.log_density({"mu": jnp.array(0.2)}, Batch({"index": order}, weight)), want)


# --- discrete


def test_sampled_discrete_sites():
    def fn(x):
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        j = numpyro.sample("j", dist.DiscreteUniform(2, 4).expand([2]))
        b = numpyro.sample("b", dist.Bernoulli(0.3).expand([4]).to_event(1))
        numpyro.sample("x", dist.Normal(jnp.array([-1.0, 0.0, 2.0])[k] + b.sum() + j.sum(), 1.0), obs=x)

    model = from_numpyro(fn, 0.7)
    assert model.site_kinds == {"k": "category", "j": "category", "b": "binary"}
    assert {n: s.shape for n, s in model.latents.items()} == {"k": (3,), "j": (2, 3), "b": (4,)}
    assert model.relaxable == {"b"}
    z = point(model)
    values = {"k": jnp.argmax(z["k"]), "j": 2 + jnp.argmax(z["j"], -1), "b": z["b"]}
    want, _ = numpyro_log_density(fn, (0.7,), {}, values)
    np.testing.assert_allclose(model.log_density(z, Batch()), want, rtol=1e-12)
    out = model.constrain(z)
    assert (out["j"] == values["j"]).all()
    assert all(jnp.issubdtype(v.dtype, jnp.integer) for v in out.values())
    grad = jax.jit(jax.grad(lambda z: model.log_density(z)))(z)
    assert jax.tree.all(jax.tree.map(lambda a: jnp.isfinite(a).all(), grad))
    assert (grad["b"] != 0).all()


def test_binary_site_used_as_an_index_is_an_integer():
    def fn():
        b = numpyro.sample("b", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(jnp.array([0.0, 3.0])[b], 1.0), obs=1.0)

    model = from_numpyro(fn)
    assert model.relaxable == frozenset()
    want = jnp.log(0.3) + dist.Normal(3.0, 1.0).log_prob(1.0)
    np.testing.assert_allclose(model.log_density({"b": jnp.array(1.0)}, Batch()), want)


def mixture(x, n=None, batch=None):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("clusters", 3):
        mu = numpyro.sample("mu", dist.Normal(0, 3))
    with numpyro.plate("rows", len(x) if n is None else n, subsample_size=batch) as i:
        k = numpyro.sample("k", dist.Categorical(p), infer={"enumerate": "parallel"})
        numpyro.deterministic("which", mu[k])
        numpyro.sample("x", dist.Normal(mu[k], 1.0), obs=x[i] if x is not None else None)
    numpyro.deterministic("spread", mu.max() - mu.min())


def mixture_prior():
    numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("mu", dist.Normal(0, 3).expand([3]))


def by_hand(model, z, x):
    value = model.constrain(z)
    terms = jnp.log(value["p"]) + dist.Normal(value["mu"], 1.0).log_prob(x[:, None])
    return logsumexp(terms, axis=-1)


@needs_funsor
def test_enumerated_mixture():
    x = X[:, 0]
    model = from_numpyro(mixture, x)
    z = point(model)
    rows = by_hand(model, z, x)
    assert set(model.latents) == {"p", "mu"}
    prior = from_numpyro(mixture_prior).log_density(z)
    np.testing.assert_allclose(jax.jit(lambda z: model.log_likelihood(z))(z)["x"], rows, rtol=1e-12)
    assert set(model.deterministics(z)) == {"spread"}
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), z)
    out = jax.jit(jax.vmap(lambda z: model.log_density(z, Batch())))(many)
    np.testing.assert_allclose(out[0], prior + rows.sum(), rtol=1e-12)
    assert model.predict(jax.random.key(0), z)["x"].shape == (20,)

    small = from_numpyro(mixture, x, n=20, batch=5)
    index, weight = jnp.array([3, 19, 4]), jnp.array([4.0, 1.0, 0.0])
    value = jax.jit(lambda z, x: small.log_density(z, x))(z, Batch({"index": index}, weight))
    np.testing.assert_allclose(value, prior + (weight * rows[index]).sum(), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda z: small.log_density(z))(z), prior + rows.sum(), rtol=1e-12)


@needs_funsor
def test_config_enumerate_and_chain():
    from numpyro.contrib.funsor import config_enumerate

    @config_enumerate
    def fn(y):
        p = numpyro.sample("p", dist.Beta(1, 1))
        probs = jnp.array([[0.9, 0.1], [0.2, 0.8]])

        def step(k, t):
            k = numpyro.sample("k", dist.Categorical(probs[k]))
            numpyro.sample("y", dist.Normal(2.0 * k + p, 1.0), obs=y[t])
            return k, None

        scan(step, 0, jnp.arange(4))

    y, z = jnp.asarray(X[:4, 0]), {"p": jnp.array(0.3)}
    model = from_numpyro(fn, y)
    p, probs = jax.nn.sigmoid(0.3), jnp.array([[0.9, 0.1], [0.2, 0.8]])
    alpha = jnp.log(jnp.array([1.0, 0.0]))
    for t in range(4):
        alpha = logsumexp(alpha[:, None] + jnp.log(probs), axis=0) + dist.Normal(2.0 * jnp.arange(2) + p, 1.0).log_prob(
            y[t]
        )
    np.testing.assert_allclose(
        jax.jit(lambda z: model.log_density(z))(z), logsumexp(alpha) + jnp.log(p * (1 - p)), rtol=1e-10
    )


# --- compiled, saved, predicted


def compiled_form(fn, *args):
    """As a fit compiles it."""
    return from_numpyro(fn, *args).twin().traced([Batch()])


def test_traced_once_and_data_are_arguments():
    def fn(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("rows", y.shape[0]):
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    @eqx.filter_jit
    def batch(model, z):
        CALLS.append(1)
        return jax.vmap(lambda z: model.log_density(z, Batch()))(z)

    one, two = compiled_form(fn, Y * 1.0), compiled_form(fn, Y * 2.0)
    CALLS.clear()
    z = {"mu": jnp.arange(3.0)}
    first, second = batch(one, z), batch(two, z)
    assert len(CALLS) == 1
    assert not jnp.allclose(first, second)


def test_a_remade_closure_is_the_same_model_once_traced():
    def make(upper):
        def fn(y):
            mu = numpyro.sample("mu", dist.Uniform(-1, jnp.array(upper)))
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)

        return compiled_form(fn, 1.0)

    one, two, other = make(3.0), make(3.0), make(4.0)
    assert jax.tree.structure(one) == jax.tree.structure(two) != jax.tree.structure(other)
    assert hash(one.structure) == hash(two.structure)


CONSTRAINTS = [
    constraints.real, constraints.positive, constraints.greater_than(1.5), constraints.less_than(-2),
    constraints.interval(-1.0, 2.0), constraints.unit_interval, constraints.simplex, constraints.ordered_vector,
    constraints.positive_ordered_vector, constraints.corr_cholesky, constraints.corr_matrix, constraints.lower_cholesky,
    constraints.positive_definite, constraints.circular, constraints.real_vector, constraints.softplus_positive,
    constraints.l1_ball, constraints.nonnegative, constraints.independent(constraints.positive, 1),
    constraints.interval(np.array([0.0, 1.0]), np.array([2.0, 3.0])), constraints.zero_sum(1), constraints.sphere,
    constraints.cat([constraints.real, constraints.positive], -1, (2, 1)), constraints.integer_interval(1, 3),
    constraints.open_interval(0.0, 1.0), constraints.scaled_unit_lower_cholesky, constraints.less_than_eq(1.0),
]  # fmt: skip


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
def test_support_round_trip(constraint):
    site = Site("x", (2, 3), "real", encode(constraint), axis=0)
    again = Site.from_json(json.loads(json.dumps(site.to_json())))
    assert again == site
    assert hash(again) == hash(site)
    assert type(decode(again.support)) is type(constraint)
    assert decode(again.support) == constraint


def test_saved_sites_constrain_without_the_model():
    model = from_numpyro(constrained_supports)
    z = point(model)
    values = jax.jit(lambda z: model.constrain(z))(z)
    saved = [Site.from_json(json.loads(json.dumps(s.to_json()))) for s in model.sites]
    again = jax.jit(lambda z: {s.name: s.constrain(z[s.name]) for s in saved})(z)
    jax.tree.map(np.testing.assert_array_equal, again, values)


def test_foreign_support_works_in_memory_only():
    class _Odd(constraints._GreaterThan):
        pass

    @dist.biject_to.register(_Odd)
    def _(constraint):
        return dist.biject_to(constraints.greater_than(constraint.lower_bound))

    model = from_numpyro(lambda: numpyro.sample("odd", dist.ImproperUniform(_Odd(2.0), (), ())))
    assert model.constrain({"odd": jnp.array(0.0)})["odd"] == 3.0
    with pytest.raises(CheckpointError, match="`odd`"):
        model.sites[0].to_json()


def test_predict_deterministics_log_likelihood():
    model = from_numpyro(logistic, G, X, y=Y)
    z = point(model)
    assert model.predict(jax.random.key(0), z)["y"].shape == (20,)
    new = model.predict(jax.random.key(0), z, args=(G[:4], X[:4]), kwargs={})
    assert set(new) == {"y"}
    assert new["y"].shape == (4,)
    draws = jax.jit(jax.vmap(lambda k: model.predict(k, z)["y"]))(jax.random.split(jax.random.key(0), 2000))
    value = model.constrain(z)
    p = jax.nn.sigmoid(value["b"][G] + X @ value["w"])
    assert (abs(draws.mean(0) - p) < 5 * jnp.sqrt(p * (1 - p) / 2000) + 1e-3).all()
    np.testing.assert_allclose(model.log_likelihood(z)["y"], dist.Bernoulli(p).log_prob(Y), rtol=1e-9)
    det = from_numpyro(improper, X[:, 0])
    np.testing.assert_allclose(det.deterministics({"mu": jnp.array(1.5), "tau": jnp.zeros(2)})["twice"], 3.0)


def test_predict_new_rows_draws_their_latents():
    def fn(n, obs=None):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("rows", n, subsample_size=min(n, 4)) as i:
            z = numpyro.sample("z", dist.Normal(mu, 0.01))
            numpyro.sample("x", dist.Normal(z, 0.01), obs=None if obs is None else obs[i])

    model = from_numpyro(fn, 10, X[:10, 0])
    z = {"mu": jnp.array(5.0), "z": jnp.zeros(10)}
    assert abs(model.predict(jax.random.key(0), z)["x"]).max() < 0.1
    new = model.predict(jax.random.key(0), z, args=(30,))["x"]
    assert new.shape == (30,)
    assert abs(new - 5.0).max() < 0.2


def test_predict_with_other_groups_names_the_site():
    def fn(n, y=None):
        with numpyro.plate("groups", n):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(z, 1), obs=y)

    model = from_numpyro(fn, 5, np.ones(5))
    with pytest.raises(ModelError, match=r"`z`(.|\n)*\(5,\)(.|\n)*\(7,\)"):
        model.predict(jax.random.key(0), model.init_z(), args=(7,))


def test_missing_values_by_obs_mask():
    """Entries that `obs_mask` does not use keep their prior, so the evidence is the observed entries' own."""

    def fn(y, mask):
        with numpyro.plate("rows", 3):
            numpyro.sample("y", dist.Normal(1.0, 2.0), obs=y, obs_mask=mask)

    y, mask = np.array([0.5, 0.0, 2.0]), np.array([True, False, True])
    model = from_numpyro(fn, y, mask)
    z = {"y_unobserved": jnp.array([0.1, 0.2, 0.3])}
    prior = dist.Normal(1.0, 2.0)
    want = prior.log_prob(y)[mask].sum() + prior.log_prob(z["y_unobserved"]).sum()
    np.testing.assert_allclose(model.log_density(z, Batch()), want, rtol=1e-12)


# --- refusals: each names the site and says what to write


def _no_latents():
    numpyro.sample("x", dist.Normal(0, 1), obs=1.0)


def _twice():
    numpyro.sample("dup", dist.Normal(0, 1))
    numpyro.sample("dup", dist.Normal(0, 1))


def _poisson():
    numpyro.sample("count", dist.Poisson(3.0))


def _sequential():
    numpyro.sample("seq", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})


def _shifted():
    numpyro.sample("k", dist.DiscreteUniform(1, 3), infer={"enumerate": "parallel"})
    numpyro.sample("x", dist.Normal(0, 1))


def _param():
    numpyro.param("theta", jnp.zeros(2))
    numpyro.sample("x", dist.Normal(0, 1))


def _mutable():
    mutable("state", {"a": jnp.zeros(2)})
    numpyro.sample("x", dist.Normal(0, 1))


def _moving():
    a = numpyro.sample("a", dist.HalfNormal(1))
    numpyro.sample("inside", dist.Uniform(0, a))


def _delta():
    numpyro.sample("point", dist.Delta(1.0))


def _sphere():
    numpyro.sample("direction", dist.ProjectedNormal(jnp.ones(3)))


def _two_plates():
    numpyro.sample("x", dist.Normal(0, 1))
    with numpyro.plate("one", 8, subsample_size=2, dim=-1), numpyro.plate("two", 8, subsample_size=2, dim=-2):
        numpyro.sample("y", dist.Normal(0, 1), obs=0.0)


def _masked():
    with handlers.mask(mask=jnp.array([True, False])):
        numpyro.sample("hidden", dist.Normal(0, 1).expand([2]))


def _outer_product():
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([3, 1]))
    numpyro.sample("seen", dist.Normal(mu, 1), obs=jnp.zeros(3))


def _whole_data():
    numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", 6, subsample_size=2):
        numpyro.sample("seen", dist.Normal(0, 1), obs=jnp.zeros(6))


def _row_bounds():
    upper = jnp.arange(1.0, 7.0)
    with numpyro.plate("rows", 6, subsample_size=2) as i:
        numpyro.sample("bounded", dist.Uniform(0, upper[i]))


def test_bounds_of_rows_that_agree_are_fine():
    def fn(n):
        upper = jnp.array([[1.0], [5.0]])
        with numpyro.plate("d", 2, dim=-2), numpyro.plate("rows", n, subsample_size=2, dim=-1) as i:
            numpyro.sample("u", dist.Uniform(0, upper + 0 * i))

    model = from_numpyro(fn, 6)
    assert model.local_latents["u"].shape == (2,)
    values = model.constrain({"u": jnp.zeros((4, 2))})["u"]
    np.testing.assert_allclose(values, [[0.5] * 4, [2.5] * 4])


def _batch_axis():
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([3]))
    k = numpyro.sample("k", dist.Categorical(jnp.ones(3) / 3), infer={"enumerate": "parallel"})
    numpyro.sample("x", dist.Normal(mu[k], 1), obs=0.0)


def _shared_switch(n=6):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    k = numpyro.sample("switch", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    with numpyro.plate("rows", n, subsample_size=2) as i:
        numpyro.sample("x", dist.Normal(mu + k, 1), obs=jnp.zeros(6)[i])


REFUSED = {
    "no latents": (_no_latents, "no latents"),
    "duplicate": (_twice, "`dup`"),
    "unbounded": (_poisson, "`count`"),
    "sequential": (_sequential, "`seq`"),
    "shifted enumeration": (_shifted, "`k`"),
    "param": (_param, "`theta`"),
    "mutable": (_mutable, "`state`"),
    "moving support": (_moving, "`inside`"),
    "delta": (_delta, "`point`"),
    "sphere": (_sphere, "`direction`"),
    "two plates": (_two_plates, "`one`, `two`"),
    "masked latent": (_masked, "`hidden`"),
    "outer product": (_outer_product, "`seen`"),
    "whole data in a minibatch": (_whole_data, "`?seen`?"),
    "bounds of rows": (_row_bounds, "`bounded`"),
    "not callable": ("model", "str"),
    "raises": (lambda: 1 / 0, "ZeroDivisionError"),
    "python if": (lambda: numpyro.sample("x", dist.Normal(0, 1)) > 0 and None, "jnp.where"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    fn, match = REFUSED[name]
    with pytest.raises(ModelError, match=match) as error:
        from_numpyro(fn)
    assert all(part in str(error.value) for part in ("wrong:", "because:", "instead:"))


@needs_funsor
@pytest.mark.parametrize(("fn", "match"), [(_batch_axis, "`mu`"), (_shared_switch, "`switch`")])
def test_refused_enumeration(fn, match):
    with pytest.raises(ModelError, match=match):
        from_numpyro(fn)


def test_original_exception_is_kept():
    with pytest.raises(ModelError, match=r"args\[0\]: f(loat)?64\[20,3\]") as error:
        from_numpyro(lambda x: x @ x, X)
    assert isinstance(error.value.__cause__, TypeError)


def test_funsor_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "funsor", None)
    with pytest.raises(ModelError, match=r"`k`(.|\n)*pip install funsor"):
        from_numpyro(mixture, X[:, 0])


@pytest.mark.parametrize(
    ("args", "kwargs", "match"),
    [
        ((np.array([1.0, math.nan]),), {}, r"`args\[0\]`"),
        ((), {"y": {"a": np.array([math.inf])}}, r"`kwargs\['y'\]\['a'\]`"),
        ((np.array(["a"]),), {}, r"`args\[0\]`"),
        (({1},), {}, r"`args\[0\]`"),
    ],
)
def test_bad_data(args, kwargs, match):
    with pytest.raises(DataError, match=match):
        from_numpyro(lambda *a, **k: numpyro.sample("x", dist.Normal(0, 1)), *args, **kwargs)


def test_large_integers_are_not_wrapped():
    model = from_numpyro(logistic, np.array([2**40]), X[:1])
    assert int(model.lifted().args.value[0][0]) == 2**40
    with jax.enable_x64(False), pytest.raises(DataError, match="do not fit"):
        model.lifted()
