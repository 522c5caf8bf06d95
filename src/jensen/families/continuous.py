"""Continuous normalizing flow: the map is the solution of an ordinary differential equation (Diffrax)."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..nets import ACTIVATIONS, MLP
from ..tree import Shared, default_float
from .flow import Conditioned
from .full_rank import FullRank
from .gaussian import log_normal_from_noise
from .mean_field import MeanField
from .noise import StandardNormal
from .warped import FLOW, AbstractWarped, start_arrays, start_base


class ContinuousFlow(AbstractWarped):
    """Continuous normalizing flow; FFJORD with trace="hutchinson".

    Definition: z = mu + L y(1), dy/dt = f(y, t), y(0) = eps ~ N(0, I), f a network that is 0 at the start;
                log q(z) = log N(eps; 0, I) - int_0^1 tr(df/dy) dt - log |L|.
    Arguments:  shape: the latents' shape or tree of shapes (at least 2 coordinates); left out, it is the model's.
                width, depth, activation: hidden layers of f; a smooth activation, or the solver's steps shrink at its kinks.
                trace: "exact", by D derivatives of f; or "hutchinson", by one: v.(df/dy) v with v ~ N(0, I), the same along
                a path. That estimate of log q, without bias, is used only where a path gradient of an objective linear in
                log q is estimated; the density of a given draw, and every other objective, takes the exact trace.
                rtol, atol: of the solver's adaptive steps (Tsitouras 5/4).   n_steps: that many equal steps instead.
                max_steps: more than that, or a solution that blows up, makes the draw NaN: such a step of a fit is skipped
                and counted.
                adjoint: "direct": gradients of what the solver did, with its steps kept; "backsolve": of the equation, by
                solving it backwards: memory of one step, and a gradient as inexact as the solver.
                loc, scale, cholesky, diagonal, context: as for `RealNVP`.
    Cost:       a draw: f at 6 points a step; its log q, 1 + D (exact) or 2 (hutchinson) times that; the density of a given draw
                as much as that of a new one with the exact trace.
    Reference:  Chen, Rubanova, Bettencourt and Duvenaud (2018); Grathwohl et al. (2019).  [grathwohl2019ffjord]
    """

    base: FullRank | MeanField
    arrays: Any
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    trace: Literal["exact", "hutchinson"] = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    n_steps: int | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    adjoint: Literal["direct", "backsolve"] = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self, shape: PyTree = None, *, width: int = 64, depth: int = 2, activation: str = "tanh",
        trace: Literal["exact", "hutchinson"] = "exact", rtol: float = 1e-5, atol: float = 1e-5,
        n_steps: int | None = None, max_steps: int = 1000, adjoint: Literal["direct", "backsolve"] = "direct",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool | None = None,
        context: int = 0,
    ):  # fmt: skip
        self.width, self.depth, self.activation, self.context = width, depth, activation, context
        self.trace, self.adjoint = trace, adjoint
        self.rtol, self.atol, self.n_steps, self.max_steps = rtol, atol, n_steps, max_steps
        _check(self)
        if diagonal is None:
            diagonal = context > 0 and cholesky is None
        self.base = start_base("ContinuousFlow", shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)

    @property
    def facts(self):
        return FLOW - {Fact.OWN_PARAMETERS} if self.context else FLOW

    def begin(self, key, dim):
        net = MLP(key, dim + 1 + self.context, (self.width,) * self.depth, dim, activation=self.activation)
        net = eqx.tree_at(lambda n: n.weights[-1], net, jnp.zeros_like(net.weights[-1]))
        return Conditioned(jnp.zeros(self.context, default_float()), Shared(net)) if self.context else net

    def map(self):
        return Ode(self.arrays, self)

    def noise_law(self):
        eps = StandardNormal(self.base.loc.shape)
        return eps if self.trace == "exact" else {"eps": eps, "probe": StandardNormal(eps.shape)}

    def _eps(self, noise: PyTree) -> Array:
        return (noise if self.trace == "exact" else noise["eps"]).astype(default_float())

    def transform(self, noise):
        return self.base.transform(self.map().transform(self._eps(noise)))

    def transform_and_log_ratio(self, noise):
        return self._with_log_q(self._eps(noise), None)

    def transform_and_log_estimate(self, noise):
        if self.trace == "exact":
            return self.transform_and_log_ratio(noise)
        return self._with_log_q(self._eps(noise), noise["probe"].astype(default_float()))

    def _with_log_q(self, eps: Array, probe: Array | None) -> tuple[PyTree, Float[Array, ""]]:
        y, log_det = self.map().transform_and_log_det(eps, probe)
        return self.base.transform(y), log_normal_from_noise(eps, self.base.log_scale) - log_det


def exact_trace(field: Callable, y: Float[Array, " D"]) -> tuple[Array, Array]:
    """(f(y), tr df/dy)."""
    value, push = jax.linearize(field, y)
    return value, jnp.trace(jax.vmap(push)(jnp.eye(y.size, dtype=y.dtype)))


def hutchinson(field: Callable, y: Float[Array, " D"], probe: Float[Array, " D"]) -> tuple[Array, Array]:
    """(f(y), v.(df/dy) v): E v v^T = I, so that its mean is the trace."""
    value, moved = jax.jvp(field, (y,), (probe,))
    return value, probe @ moved


class Ode(eqx.Module):
    """The map eps = y(0) -> y(1)."""

    arrays: Any
    how: ContinuousFlow

    def _field(self, arrays: Any, t: Array, y: Array) -> Array:
        context, net = (arrays.context, arrays.nets.value) if self.how.context else (y[:0], arrays)
        return net((y, jnp.reshape(t, (1,)), context))

    def _solve(self, rate: Callable, start: PyTree, given: Any, backwards: bool) -> PyTree:
        """The other end of the path of d(state)/dt = rate(t, state, given); NaN where the solver gave up."""
        import diffrax

        how = self.how
        controller: Any = diffrax.PIDController(rtol=how.rtol, atol=how.atol)
        dt0, max_steps, direct = None, how.max_steps, diffrax.RecursiveCheckpointAdjoint()
        if how.n_steps is not None:
            controller, max_steps = diffrax.ConstantStepSize(), how.n_steps
            dt0 = (-1.0 if backwards else 1.0) / how.n_steps
        adjoint = direct if how.adjoint == "direct" else diffrax.BacksolveAdjoint()
        t0, t1 = (1.0, 0.0) if backwards else (0.0, 1.0)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rate), diffrax.Tsit5(), t0, t1, dt0, start, given,
            stepsize_controller=controller, adjoint=adjoint, max_steps=max_steps, throw=False,
        )  # fmt: skip
        good = solution.result == diffrax.RESULTS.successful
        return jax.tree.map(lambda a: jnp.where(good, a[0], jnp.nan), solution.ys)

    def _with_log_det(self, start: Array, probe: Array | None, backwards: bool) -> tuple[Array, Array]:
        def rate(t, state, given):
            arrays, probe = given
            field = lambda y: self._field(arrays, t, y)
            return exact_trace(field, state[0]) if probe is None else hutchinson(field, state[0], probe)

        # the probe is handed over, not closed over: the adjoint by backsolve sees arguments only
        return self._solve(rate, (start, jnp.zeros((), start.dtype)), (self.arrays, probe), backwards)

    def transform(self, eps: Array) -> Array:
        """y(1)."""
        return self._solve(lambda t, y, arrays: self._field(arrays, t, y), eps, self.arrays, False)

    def transform_and_log_det(self, eps: Array, probe: Array | None = None) -> tuple[Array, Array]:
        """(y(1), int_0^1 tr df/dy dt), the trace estimated if there is a probe."""
        return self._with_log_det(eps, probe, False)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """(y(0), -int_0^1 tr df/dy dt), from y(1)."""
        return self._with_log_det(y, None, True)


def _check(q: ContinuousFlow) -> None:
    counts = {"width": 1, "depth": 1, "max_steps": 1, "n_steps": 1, "context": 0}
    given = {name: getattr(q, name) for name in (*counts, "rtol", "atol") if getattr(q, name) is not None}
    for name, value in given.items():
        if not (value >= counts[name] if name in counts else value > 0):
            asked, least = f"`ContinuousFlow({name}={value})`", counts.get(name, 1e-5)
            raise OptionError(
                explain(asked, "out of range", "it is a count or a tolerance", f"{name}={least}, or more")
            )
    choices = {"trace": ("exact", "hutchinson"), "adjoint": ("direct", "backsolve"), "activation": sorted(ACTIVATIONS)}
    for name, known in choices.items():
        if getattr(q, name) not in known:
            asked = f"`ContinuousFlow({name}={getattr(q, name)!r})`"
            raise OptionError(explain(asked, "it is unknown", "the name is looked up", f"one of {tuple(known)}"))
