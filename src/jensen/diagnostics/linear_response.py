"""Covariances from a mean-field fit: how its means move when the log density is tilted."""

import dataclasses
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..arrays import in_force, lifted
from ..batch import Batch
from ..compiled import compiled, key_for
from ..errors import ModelError, OptionError, explain
from ..facts import Fact
from ..families.noise import StandardNormal, is_law
from ..function import Static
from ..gradients.plans import QuasiMonteCarlo
from ..tree import Layout, default_float, split_trainable

if TYPE_CHECKING:
    import pandas as pd

NEWTON = 100  # steps
SETTLED = {"float64": 1e-16, "float32": 1e-6}  # of the Newton decrement: a squared distance in sds of q
AT_ONCE = 256  # draws, or columns of the Hessian, evaluated together


@dataclasses.dataclass(frozen=True)
class LinearResponse:
    """covariance: (D, D), of the coordinates in `names`.   mean, sd: (D,).   mean_field_sd: q's own, beside it.
    bound: the ELBO on the noise used, nats.   moved: how far the optimum on this noise lies from the fit, in sd of q."""

    names: list[str]
    mean: Float[np.ndarray, " D"]
    covariance: Float[np.ndarray, "D D"]
    mean_field_sd: Float[np.ndarray, " D"]
    bound: float
    moved: float

    @property
    def sd(self) -> Float[np.ndarray, " D"]:
        return np.sqrt(np.diagonal(self.covariance))

    @property
    def correlation(self) -> Float[np.ndarray, "D D"]:
        return self.covariance / np.outer(self.sd, self.sd)

    def summary(self) -> "pd.DataFrame":
        """A row a coordinate: mean, sd by linear response, sd of q."""
        import pandas as pd

        columns = {"mean": self.mean, "sd": self.sd, "mean_field_sd": self.mean_field_sd}
        return pd.DataFrame(columns, index=pd.Index(self.names, name="parameter"))


def linear_response(fit: Any, n_draws: int = 1024, seed: int = 0, *, unconstrained: bool = False) -> LinearResponse:
    """Linear response variational Bayes (LRVB): the covariance that mean-field q does not have.

    Definition: eta(t) maximises L(eta) + t . m(eta), L the ELBO and m(eta) = E_q[z]: q for the log density log p + t . z, of
                which the exact posterior's covariance is dE[z] / dt at t = 0. By the implicit function theorem
                Sigma = dm/dt = J (-H)^(-1) J^T,   H = d^2 L / d eta^2,   J = dm / d eta,
                in mean and variance coordinates the (I - V H)^(-1) V of the paper.
    Arguments:  fit: of a family with independent coordinates.   n_draws: of the noise on which L is made a fixed function
                (quasi-random; standard normals are given mean 0 and covariance I exactly, so that quadratic log
                densities have no error), and Newton's method goes to its maximum from the fit.   seed: of this noise.
                unconstrained: covariances of the coordinates q lives in; default: of the user's, z = constrain(u).
    Returns:    `LinearResponse`, computed in the fit's own precision.
    Bias:       none for Gaussian posteriors, whose covariance it gives exactly; else that of the means of q to first order.
                A mean-field q at a wrong place, or in one of several modes, has the response of that place.
    Raises:     ModelError where q has dependent coordinates (its covariance is its own), no path gradient, a latent a row,
                or where the maximum is none.
    Cost:       a Newton step takes 2 D n_draws second-order products; some 5 steps.
    Reference:  Giordano, Broderick and Jordan (2018), equations 8-10; for fixed noise Giordano, Ingram and Broderick
                (2024).  [giordano2018covariances, giordano2024dadvi]
    """
    if isinstance(n_draws, bool) or not isinstance(n_draws, (int, np.integer)) or n_draws < 2:
        asked = f"linear_response(n_draws={n_draws!r})"
        raise OptionError(explain(asked, "it is not a whole number of 2 or more", "it counts draws", "n_draws=1024"))
    _check(fit)
    with fit.precision():
        model, family, rows = fit.model.lifted(), in_force(fit.family), lifted(fit.rows)
        params, rest = split_trainable(family)
        start = ravel_pytree(params)[0]
        noise = _noise(family, int(n_draws), seed)
        arrays, static = eqx.partition((jax.tree.map(jnp.zeros_like, params), rest, model), eqx.is_array)
        problem = (Static(static), unconstrained, arrays, noise, Batch(rows))
        best, bound, curvature = _maximum(problem, np.asarray(start))
        mean, jacobian, variance = jax.device_get(_moments(*problem, jnp.asarray(best, default_float())))
        before = jax.device_get(_moments(*problem, start))[0]
        names = Layout(jax.eval_shape(_coordinates(model, unconstrained), model.latents)).names()
    covariance = jacobian @ np.linalg.solve(curvature, jacobian.T)
    sd = np.sqrt(variance)
    moved = float(np.max(np.abs(mean - before) / np.maximum(sd, 1e-300)))
    return LinearResponse(names, mean, 0.5 * (covariance + covariance.T), sd, bound, moved)


def _check(fit: Any) -> None:
    asked, instead = "`linear_response` of this fit", "fit(model, family=MeanField())"
    if fit.model is None:
        because = "its log density is differentiated"
        raise ModelError(explain(asked, "it was loaded without its model", because, "load(folder, model=...)"))
    if fit.plated or Fact.LOCAL in fit.family.facts:
        because = "the response of latents that belong to rows is not computed here"
        raise ModelError(explain(asked, "every row has a latent of its own", because, "a model with global latents"))
    for fact, because in (
        (Fact.INDEPENDENT_COORDINATES, "other families have covariances of their own: fit.summary(), fit.sample()"),
        (Fact.REPARAMETERISED, "the ELBO is differentiated along the draws"),
        (Fact.LOG_PROB, "the ELBO needs log q"),
    ):
        if fact not in fit.family.facts:
            raise ModelError(explain(asked, f"`{type(fit.family).__name__}`: not so: {fact.value}", because, instead))
    if Fact.DIFFERENTIABLE not in fit.model.facts:
        raise ModelError(
            explain(asked, "its log density is not differentiable", "second derivatives are taken", instead)
        )


def _noise(family: Any, n: int, seed: int) -> PyTree:
    """Quasi-random where the noise is typed; standard normals with mean 0 and covariance I exactly."""
    key, law = key_for(seed, "linear response"), family.noise_law()
    if Fact.TYPED_NOISE not in family.facts:
        return family.noise(key, (n,))
    drawn = QuasiMonteCarlo().draw(key, law, (n,))
    return jax.tree.map(
        lambda one, e: _standard(e) if isinstance(one, StandardNormal) else e, law, drawn, is_leaf=is_law
    )


def _standard(e: Float[Array, "n *S"]) -> Float[Array, "n *S"]:
    flat = e.reshape(len(e), -1)
    centred = flat - flat.mean(0)
    if len(flat) <= flat.shape[1]:
        return (centred / centred.std(0)).reshape(e.shape)
    root = jnp.linalg.cholesky(centred.T @ centred / len(flat))
    return jax.scipy.linalg.solve_triangular(root, centred.T, lower=True).T.reshape(e.shape)


def _coordinates(model: Any, unconstrained: bool) -> Any:
    return (lambda z: z) if unconstrained else model.constrain


def _q(arrays: PyTree, static: Static, flat: Float[Array, " P"]) -> tuple[Any, Any]:
    """(q with these parameters, the model)."""
    like, rest, model = eqx.combine(arrays, static.tree)
    return eqx.combine(ravel_pytree(like)[1](flat), rest), model


def _over_noise(fn: Any, noise: PyTree) -> Any:
    return jax.tree.map(lambda a: a.mean(0), jax.lax.map(fn, noise, batch_size=AT_ONCE))


@compiled(0, 1)
def _second_order(static: Static, unconstrained: bool, arrays, noise, batch: Batch, flat: Float[Array, " P"]):
    """(ELBO, its gradient, its Hessian) on this noise."""

    def bound(flat):
        q, model = _q(arrays, static, flat)
        closed = Fact.ENTROPY in q.facts

        def one(e):
            draw, log_q = q.transform_and_log_ratio(e)
            return model.log_density(q.latent(draw), batch) - (0.0 if closed else log_q)

        return _over_noise(one, noise) + (q.entropy() if closed else 0.0)

    product = lambda v: jax.jvp(jax.grad(bound), (flat,), (v,))[1]
    hessian = jax.lax.map(product, jnp.eye(flat.size, dtype=flat.dtype), batch_size=AT_ONCE)
    return (*jax.value_and_grad(bound)(flat), hessian)


@compiled(0, 1)
def _moments(static: Static, unconstrained: bool, arrays, noise, batch: Batch, flat: Float[Array, " P"]):
    """(E_q z, its Jacobian in q's parameters, the variances of q)."""

    def expected(flat, fn):
        q, model = _q(arrays, static, flat)
        of = _coordinates(model, unconstrained)
        return _over_noise(lambda e: fn(ravel_pytree(of(q.latent(q.transform(e))))[0]), noise)

    mean = expected(flat, lambda z: z)
    push = lambda v: jax.jvp(lambda f: expected(f, lambda z: z), (flat,), (v,))[1]
    jacobian = jax.lax.map(push, jnp.eye(flat.size, dtype=flat.dtype), batch_size=AT_ONCE).T
    return mean, jacobian, expected(flat, lambda z: (z - mean) ** 2)


def _maximum(problem: tuple, flat: np.ndarray) -> tuple[np.ndarray, float, Float[np.ndarray, "P P"]]:
    """Newton's method, with a ridge that grows where a step does not rise: (parameters, ELBO, -H there)."""
    dtype = default_float()
    evaluate = lambda x: [
        np.asarray(a, np.float64) for a in jax.device_get(_second_order(*problem, jnp.asarray(x, dtype)))
    ]
    flat = np.asarray(flat, np.float64)
    value, gradient, hessian = evaluate(flat)
    ridge, rounding = 0.0, 10 * float(jnp.finfo(dtype).eps)
    for _ in range(NEWTON):
        curvature = -0.5 * (hessian + hessian.T)
        if not np.isfinite(curvature).all():
            break
        values, vectors = np.linalg.eigh(curvature)
        top = max(np.abs(values).max(), 1e-300)
        if values[0] > 0 and (((vectors.T @ gradient) ** 2) / values).sum() <= SETTLED[str(dtype)]:
            return flat, float(value), curvature
        damped = np.maximum(np.abs(values), 1e-12 * top) + ridge
        step = vectors @ ((vectors.T @ gradient) / damped)
        new = evaluate(flat + step)
        risen = np.isfinite(new[0]) and new[0] >= value - rounding * max(1.0, abs(float(value)))
        if risen:
            flat, (value, gradient, hessian) = flat + step, new
        ridge = 0.1 * ridge if risen else max(10 * ridge, 1e-3 * top)
    because = "the response is the inverse of the ELBO's curvature at a maximum"
    wrong = "no maximum of the ELBO was found from where the fit ended"
    raise ModelError(explain("`linear_response` of this fit", wrong, because, "a fit that has settled; more n_draws"))
