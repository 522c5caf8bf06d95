"""Inference Gym targets, through imitations of their interface: the density is that of the change of variables."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

import jensen as jn
from jensen.errors import ModelError
from jensen.facts import Fact
from jensen.models.adapters.gym import from_inference_gym


class Identity:
    def forward(self, z):
        return z

    def inverse(self, x):
        return x

    def inverse_event_shape(self, shape):
        return shape

    def forward_log_det_jacobian(self, z, event_ndims):
        return jnp.zeros(jnp.shape(z)[: jnp.ndim(z) - event_ndims])


class Exp(Identity):
    def forward(self, z):
        return jnp.exp(z)

    def inverse(self, x):
        return jnp.log(x)

    def forward_log_det_jacobian(self, z, event_ndims):
        return z.sum(tuple(range(z.ndim - event_ndims, z.ndim)))


class Simplex(Identity):
    """Softmax of (z, 0): one number fewer than x."""

    def forward(self, z):
        return jax.nn.softmax(jnp.append(z, 0.0))

    def inverse(self, x):
        return jnp.log(x[:-1]) - jnp.log(x[-1])

    def inverse_event_shape(self, shape):
        return (shape[0] - 1,)

    def forward_log_det_jacobian(self, z, event_ndims):
        return jax.nn.log_softmax(jnp.append(z, 0.0)).sum()


class Joint:
    """One bijector for a whole tree."""

    def __init__(self, parts):
        self.parts = parts

    def _map(self, method, value):
        return type(value)(**{n: getattr(b, method)(value[n]) for n, b in self.parts.items()})

    def forward(self, z):
        return self._map("forward", z)

    def inverse(self, x):
        return self._map("inverse", x)

    def inverse_event_shape(self, shape):
        return self._map("inverse_event_shape", shape)

    def forward_log_det_jacobian(self, z, event_ndims):
        return sum(b.forward_log_det_jacobian(z[n], event_ndims[n]).sum() for n, b in self.parts.items())


class Shape:
    """As TensorShape: iterable, not a tuple."""

    def __init__(self, *dims):
        self.dims = dims

    def __iter__(self):
        return iter(self.dims)


class Gaussian:
    """A vector event."""

    event_shape, dtype, default_event_space_bijector = Shape(3), np.float32, Identity()

    def unnormalized_log_prob(self, x):
        return -0.5 * ((x - 1.0) ** 2 / jnp.array([1.0, 4.0, 0.25])).sum()


class Tree:
    """A dictionary event, with a tree of bijectors or one for all."""

    event_shape: ClassVar = {"scale": (), "w": (2,), "p": (3,)}
    dtype: ClassVar = {"scale": jnp.float32, "w": jnp.float32, "p": jnp.float32}

    def __init__(self, joint=False):
        parts = {"scale": Exp(), "w": Identity(), "p": Simplex()}
        self.default_event_space_bijector = Joint(parts) if joint else parts

    def unnormalized_log_prob(self, x):
        scale = stats.gamma.logpdf(x["scale"], 2.0)
        return (
            scale
            + stats.norm.logpdf(x["w"], 0, x["scale"]).sum()
            + (jnp.array([0.0, 1.0, 2.0]) * jnp.log(x["p"])).sum()
        )


@pytest.mark.parametrize("joint", [False, True])
def test_change_of_variables(joint):
    """log p(z) = log p(x) + log |det dx/dz|, the determinant by automatic differentiation."""
    with jax.enable_x64(True):
        target = Tree(joint)
        model = from_inference_gym(target)
        assert {n: s.shape for n, s in model.latents.items()} == {"p": (2,), "scale": (), "w": (2,)}
        assert model.facts == {Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT}
        z = {"scale": jnp.array(0.3), "w": jnp.array([0.5, -1.0]), "p": jnp.array([0.2, -0.4])}
        flat, unravel = jax.flatten_util.ravel_pytree(z)

        def free(v):
            x = model.constrain(unravel(v))
            return jnp.concatenate([x["scale"][None], x["w"], x["p"][:-1]])

        log_det = jnp.linalg.slogdet(jax.jacfwd(free)(flat))[1]
        x = model.constrain(z)
        np.testing.assert_allclose(model.log_density(z), target.unnormalized_log_prob(x) + log_det, rtol=1e-12)
        back, change = model.unconstrain(x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), back, z)
        np.testing.assert_allclose(change, log_det, rtol=1e-12)


@pytest.mark.parametrize("joint", [False, True])
def test_fit(joint):
    fit = jn.fit(from_inference_gym(Tree(joint)), family="mean-field", n_steps=500, optimizer=0.02, n_draws=500)
    draws = fit.sample(1000)
    assert (draws["scale"] > 0).all() and np.allclose(draws["p"].sum(1), 1, atol=1e-5)
    assert abs(draws["p"].mean(0) - np.array([1, 2, 3]) / 6).max() < 0.08  # Dirichlet(1, 2, 3)


def test_a_vector_event():
    model = from_inference_gym(Gaussian())
    assert model.latents.shape == (3,)
    value, slope = jax.value_and_grad(model.log_density)(jnp.zeros(3))
    np.testing.assert_allclose(value, -0.5 * (1 + 1 / 4 + 4), rtol=1e-6)
    np.testing.assert_allclose(slope, [1.0, 0.25, 4.0], rtol=1e-6)
    with pytest.raises(ModelError, match="already holds its data"):
        jn.fit(model, np.zeros(3))


def test_a_second_model_of_a_target_compiles_nothing(compilations):
    target = Gaussian()
    fit = lambda: jn.fit(from_inference_gym(target), family="mean-field", n_steps=50, optimizer=0.1, n_draws=256)
    fit()
    assert compilations(fit)[1] == 0


class Event(NamedTuple):
    scale: object
    w: object


class Named(Gaussian):
    event_shape, dtype = Event((), (2,)), Event(np.float32, np.float32)
    default_event_space_bijector = Event(Exp(), Identity())

    def unnormalized_log_prob(self, x):
        return -x.scale - (x.w**2).sum()


def test_a_named_tuple_event():
    model = from_inference_gym(Named())
    assert model.latents.w.shape == (2,)
    z = Event(jnp.array(0.5), jnp.ones(2))
    np.testing.assert_allclose(model.log_density(z), -np.exp(0.5) - 2 + 0.5, rtol=1e-6)


class Discrete(Gaussian):
    dtype = np.int32


class Opaque(Gaussian):
    def unnormalized_log_prob(self, x):
        return float(np.sum(x))


class Batched(Gaussian):
    def unnormalized_log_prob(self, x):
        return x


@pytest.mark.parametrize(
    ("match", "target"),
    [
        ("has no event_shape, default_event", object()),
        ("int32", Discrete()),
        ("JAX cannot trace", Opaque()),
        (r"shape \(3,\)", Batched()),
    ],
)
def test_refused(match, target):
    with pytest.raises(ModelError, match=match) as error:
        from_inference_gym(target)
    assert all(f"{part}:" in str(error.value) for part in ("wrong", "because", "instead"))
