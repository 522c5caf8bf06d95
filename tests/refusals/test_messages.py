"""What is refused, in which words, and that the remedy works."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from jensen.batch import Batch
from jensen.errors import IncompatibleComposition, ModelError
from jensen.families import Amortised, Bernoulli, Categorical, FullRank, GlobalLocal, MeanField, Product
from jensen.gradients import DoublyReparameterised, Enumerate, LeaveOneOut, Pathwise, ScoreFunction, Sitewise, plans
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.judge import Composition, check
from jensen.models import LatentVariable, LogDensity
from jensen.objectives import CUBO, ELBO, IWAE, Renyi

ROWS = np.array([[0.3], [1.1], [-0.4], [0.9]])
NORMAL = LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
ROWWISE = LogDensity(lambda z: -0.5 * (z**2).sum(), (2,), log_likelihood=lambda z, row: -((row - z) ** 2).sum())
WHOLE = LogDensity(lambda z, rows: -((rows - z) ** 2).sum(), (2,))
BLACK_BOX = LogDensity(lambda z: jax.lax.stop_gradient(-0.5 * (z**2).sum()), (2,), differentiable=False)
MIXED = LogDensity(lambda z: -((z["w"] - z["b"]) ** 2).sum(), {"w": (1,), "b": (1,)})
Q = MeanField((2,))
MIXED_Q = Product({"w": MeanField((1,)), "b": Bernoulli([0.3])})
BITS = LatentVariable(Bernoulli([0.2, -0.1]), eqx.nn.Linear(2, 1, key=jr.key(0)), "bernoulli", shape=(1,))


def composition(model=NORMAL, family=Q, objective=None, gradient=None, plan=None, n_samples=2, minibatched=False):
    parts = (objective or ELBO(), gradient or Pathwise(), plan or plans.IID())
    return Composition(model, family, *parts, n_samples, minibatched)


# (what is asked, the message, the same with the remedy)
REFUSED = {
    "a path through a discrete q": (
        {"family": Bernoulli([0.1, -0.2])},
        """`Pathwise` cannot estimate the gradient of `ELBO` for `Bernoulli` and `LogDensity`:
  - needs: transform(noise) is differentiable in the parameters; `Bernoulli` (family) does not provide it.
    because: `Pathwise`: the gradient is carried by the sample path dz/dphi
    instead: LeaveOneOut(), or Enumerate()""",
        [{"gradient": LeaveOneOut()}, {"gradient": Enumerate()}],
    ),
    "the log of a minibatch's weight": (
        {"model": ROWWISE, "objective": IWAE(), "minibatched": True},
        """`Pathwise` cannot estimate the gradient of `IWAE` for `MeanField` and `LogDensity`:
  - needs: the log-weight is exact, not a minibatch estimate under a global latent; `LogDensity` (model) does not provide it.
    because: `IWAE`: it is nonlinear in the log-weights, and a nonlinear function of a minibatch estimate is biased
    instead: ELBO(), or batch_size=None (all rows at every step)""",
        [{"objective": ELBO()}, {"minibatched": False}],
    ),
    "one draw, compared with itself": (
        {"gradient": LeaveOneOut(), "n_samples": 1},
        """`LeaveOneOut` cannot estimate the gradient of `ELBO` for `MeanField` and `LogDensity`:
  - needs: n_samples >= 2; n_samples=1.
    because: `LeaveOneOut` compares draws with one another
    instead: n_samples=2""",
        [{"n_samples": 2}],
    ),
    "dependent draws in a nonlinear bound": (
        {"objective": IWAE(), "plan": plans.Antithetic()},
        """`Pathwise` cannot estimate the gradient of `IWAE` for `MeanField` and `LogDensity`:
  - needs: the K draws are independent; `Antithetic` (plan) does not provide it.
    because: `IWAE`: it is nonlinear in the log-weights, so dependence between draws changes the bound itself
    instead: plans.IID()""",
        [{"plan": plans.IID()}],
    ),
    "a closed-form KL without a prior": (
        {"objective": ELBO("kl")},
        """`Pathwise` cannot estimate the gradient of `ELBO` for `MeanField` and `LogDensity`:
  - needs: the prior is separate, and its expectation under q is a function of q's means and variances; `LogDensity` (model) does not provide it.
    because: `ELBO`: KL(q || prior) is taken in closed form
    instead: ELBO(), or ELBO("entropy")""",  # noqa: E501
        [{"objective": ELBO()}, {"objective": ELBO("entropy")}],
    ),
    "some rows of a density of all rows": (
        {"model": WHOLE, "minibatched": True},
        """`Pathwise` cannot estimate the gradient of `ELBO` for `MeanField` and `LogDensity`:
  - needs: the log density of a minibatch, scaled up, estimates that of the whole data; `LogDensity` (model) does not provide it.
    because: rows left out would be missing from the posterior
    instead: LogDensity(log_prior, shape, log_likelihood=per_row), or batch_size=None""",  # noqa: E501
        [{"model": ROWWISE}, {"minibatched": False}],
    ),
    "a path through a black box": (
        {"model": BLACK_BOX, "gradient": DoublyReparameterised()},
        """`DoublyReparameterised` cannot estimate the gradient of `ELBO` for `MeanField` and `LogDensity`:
  - needs: log_density(z) is differentiable in z; `LogDensity` (model) does not provide it.
    because: `DoublyReparameterised`: the gradient is carried by d log p / dz
    instead: LeaveOneOut()""",
        [{"gradient": LeaveOneOut()}],
    ),
    "a score function with the same noise for ever": (
        {"gradient": ScoreFunction(), "plan": plans.CommonRandomNumbers()},
        """`ScoreFunction` cannot estimate the gradient of `ELBO` for `MeanField` and `LogDensity`:
  - needs: every step draws new noise; `CommonRandomNumbers` (plan) does not provide it.
    because: `ScoreFunction`: only its mean over noise is the gradient: with fixed noise it descends no function
    instead: plans.IID(), or Pathwise()""",
        [{"plan": plans.IID()}, {"gradient": Pathwise()}],
    ),
    "a path for one discrete site": (
        {"model": MIXED, "family": MIXED_Q, "gradient": Sitewise({"w": Pathwise(), "b": Pathwise()})},
        """`Sitewise` cannot estimate the gradient of `ELBO` for `Product` and `LogDensity`:
  - needs: Pathwise() for site 'b': transform(noise) is differentiable in the parameters, which it lacks.
    because: the gradient is carried by the sample path dz/dphi
    instead: LeaveOneOut(), or Enumerate()""",
        [{"gradient": Sitewise({"w": Pathwise(), "b": LeaveOneOut()})}],
    ),
    "a normal q over bits": (
        {"model": BITS},
        """`Pathwise` cannot estimate the gradient of `ELBO` for `MeanField` and `LatentVariable`:
  - needs: q over the support of `z`, which is binary; `MeanField` (family) is real.
    because: log p and log q would be densities of different kinds, and their ratio no bound on anything
    instead: Bernoulli()""",
        [{"family": Bernoulli([0.0, 0.0]), "gradient": LeaveOneOut()}],
    ),
}


@pytest.mark.parametrize(("asked", "message", "remedies"), REFUSED.values(), ids=REFUSED)
def test_the_message_and_its_remedies(asked, message, remedies):
    with pytest.raises(IncompatibleComposition) as caught:
        check(composition(**asked))
    assert str(caught.value) == message
    for remedy in remedies:
        right = composition(**asked | remedy)
        check(right)
        _one_step(right)


def _one_step(c):
    rows = ROWS[:2] if c.minibatched else ROWS
    batch = Batch(jnp.asarray(rows), jnp.full(2, 2.0) if c.minibatched else None)
    carry = c.gradient.init(Bound.make(c.model, c.family, c.objective, batch))
    parts = Parts(c.model, c.family, c.gradient)
    e = value_and_grad(jr.key(0), parts, c.objective, c.plan, batch, carry, n_samples=c.n_samples)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves((e.value, e.grads)))


def test_all_reasons_come_at_once():
    asked = composition(WHOLE, Bernoulli([0.1, 0.2]), CUBO(), plan=plans.Stratified(), n_samples=1, minibatched=True)
    with pytest.raises(IncompatibleComposition) as caught:
        check(asked)
    assert str(caught.value).count("- needs:") == 5


def test_a_fact_is_a_property_of_the_object():
    """Renyi(1.0) is linear: what is refused for another order is not for this one."""
    asked = {"model": ROWWISE, "plan": plans.QuasiMonteCarlo(), "n_samples": 4, "minibatched": True}
    with pytest.raises(IncompatibleComposition):
        check(composition(**asked, objective=Renyi(0.9)))
    check(composition(**asked, objective=Renyi(1.0)))


SHAPE = jax.ShapeDtypeStruct((2,), float)
BADLY_SIZED = {
    "an encoder without rows": (
        lambda: Amortised(MeanField()).bind(SHAPE, None, jr.key(0)),
        "MeanField() or FullRank()",
    ),
    "local latents without a plate": (
        lambda: GlobalLocal(MeanField(), Amortised()).bind(SHAPE, ROWS, jr.key(0)),
        "Amortised() for a model with a latent for each row",
    ),
    "another shape": (lambda: FullRank((3,)).bind(SHAPE, None, jr.key(0)), "FullRank() without a shape"),
    "one array for named sites": (
        lambda: Bernoulli().bind({"a": SHAPE, "b": SHAPE}, None, jr.key(0)),
        'Product({"site": Bernoulli()',
    ),
    "a site too few": (
        lambda: Product({"a": MeanField()}).bind({"a": SHAPE, "b": SHAPE}, None, jr.key(0)),
        "one key a site",
    ),
    "other logits": (lambda: Categorical([0.1, 0.2, 0.3]).bind(SHAPE, None, jr.key(0)), "logits of shape (2,)"),
    "too many states": (lambda: Bernoulli(np.zeros(20)).support(), "LeaveOneOut() as the gradient"),
}


@pytest.mark.parametrize(("make", "remedy"), BADLY_SIZED.values(), ids=BADLY_SIZED)
def test_a_family_that_does_not_fit_the_model(make, remedy):
    with pytest.raises(ModelError) as caught:
        make()
    message = str(caught.value)
    assert all(part in message for part in ("wrong: ", "because: ", "instead: "))
    assert remedy in message.split("instead: ")[1]


def test_amortised_sites_can_be_given_rules():
    """A product that an encoder parametrises has the factors of the product."""
    family = Amortised(MIXED_Q, lambda x: jnp.zeros(3))
    model = LogDensity(lambda z, row: MIXED.fn(z), {"w": (1,), "b": (1,)}, local=True)
    check(composition(model, family, gradient=Sitewise({"w": Pathwise(), "b": LeaveOneOut()})))
    with pytest.raises(IncompatibleComposition, match="n_samples >= 2"):
        check(composition(model, family, gradient=Sitewise({"w": Pathwise(), "b": LeaveOneOut()}), n_samples=1))
