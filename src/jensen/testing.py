"""Checks for parts of one's own: what jensen's own parts are held to, for a model, family, plan, estimator or method of yours.

Each raises `Wrong`, an AssertionError, whose message says what was asked, what is wrong, why it matters and what to write
instead; so they are tests as they stand:

    from jensen import testing

    def test_my_family():
        testing.check_family(MyFamily(), {"a": (2,)})

Statistical ones allow `Z` standard errors, about one false alarm in a million checks, and all are functions of `seed`.
"""

import math
import tempfile
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree
from scipy.stats import kstest

from .algorithms.method import AbstractMethod
from .batch import Batch
from .errors import IncompatibleComposition, JensenError, explain
from .facts import Fact
from .families.base import AbstractDistribution, AbstractFamily
from .families.discrete import Bernoulli
from .families.mean_field import MeanField
from .families.noise import StandardNormal, Uniform
from .fit.fit import fit
from .fit.persist import load
from .gradients import LeaveOneOut, Pathwise, ScoreFunction
from .gradients.base import AbstractEstimator
from .gradients.plans import AbstractPlan
from .lab.lab import gradient_lab
from .methods.lookup import method_named
from .models.base import AbstractModel, computes_nothing, unconstrained
from .models.coerce import as_model
from .models.latent_variable import LatentVariable
from .models.log_density import LogDensity
from .tree import Layout, split_trainable

Z = 5.5  # standard errors
N = 20_000  # draws
MEAN, SD = 0.1, 0.1  # of the posterior sd: what a RELIABLE fit may be off by
KERNELS, WIDTH = 400, 0.6  # of a density of draws; in their sd
CLOSE = 1e-6  # of exact identities in double precision, relative to their size


class Wrong(AssertionError):
    """A part does not do what it promises."""


def _hold(holds: Any, asked: str, wrong: str, because: str, instead: str) -> None:
    if not bool(holds):
        raise Wrong(explain(asked, wrong, because, instead))


# ---- models ---------------------------------------------------------------------------------------------------------
def check_model(model: Any, data: Any = None, *, seed: int = 0) -> None:
    """That a model is one that everything else can rely on.

    Checks:     its log density is a finite number at some point, the same when compiled and when mapped, and differentiable
                where it says so, with the derivative that differences find; `constrain` and `unconstrain` are inverse, with the
                log Jacobian that differentiation finds; the log density of minibatches has that of all rows as its mean, where
                it says so.
    Arguments:  model, data: as for `fit`.
    Raises:     Wrong; ModelError and DataError as `fit`.
    """
    with jax.enable_x64(True):
        found, rows = as_model(model, data)
        name, key = type(found).__name__, jr.key(seed)
        layout = Layout(found.latents)
        x = _first(found, rows)
        density = lambda u: found.log_density(layout.unravel(u), x)
        points = 0.5 * jr.normal(key, (8, layout.size))
        values = np.asarray([density(u) for u in points])
        usable = np.isfinite(values)
        asked = f"log_density of `{name}`"
        instead = "a log density that is finite on an open set of unconstrained latents"
        _hold(usable.any(), asked, "it is finite at none of 8 points near 0", "a fit starts there", instead)
        mapped = np.asarray(jax.jit(jax.vmap(density))(points))
        because, instead = "fits run compiled and mapped", "a pure function of its arguments in jax.numpy"
        same = np.allclose(mapped[usable], values[usable], rtol=CLOSE, atol=CLOSE)
        _hold(same, asked, "compiled and mapped it gives other values", because, instead)
        if Fact.DIFFERENTIABLE in found.facts:
            _check_gradient(asked, density, points[usable][0], key)
        _check_coordinates(found, name, layout, points)
        if Fact.MINIBATCH in found.facts and rows is not None and not found.plated:
            _check_minibatches(found, name, rows, layout.unravel(points[usable][0]))


def _first(model: AbstractModel, rows: Any) -> Any:
    return jax.tree.map(lambda a: a[0], rows) if model.plated else Batch(rows, None)


def _check_gradient(asked: str, density: Any, u: Any, key: Any) -> None:
    way = jr.normal(key, u.shape)
    along = float(jax.grad(density)(u) @ way)
    h = 1e-5
    differences = float((density(u + h * way) - density(u - h * way)) / (2 * h))
    wrong = f"its derivative along a line is {along:.6g}, and differences give {differences:.6g}"
    because, instead = "it promises DIFFERENTIABLE", "no stop_gradient, rounding or branch on values; or no such fact"
    _hold(abs(along - differences) <= 1e-4 * (1 + abs(along)), asked, wrong, because, instead)


def _check_coordinates(model: AbstractModel, name: str, layout: Layout, points: Any) -> None:
    if computes_nothing(model):
        return
    for u in points[:3]:
        value = model.constrain(layout.unravel(u))
        back, log_det = unconstrained(model, value)
        asked, because = f"`{name}.unconstrain(constrain(z))`", "densities of values are found through it"
        wrong = f"it is {np.round(layout.ravel(back), 4)[:4]} ..., and z is {np.round(u, 4)[:4]} ..."
        same = np.allclose(layout.ravel(back), u, rtol=CLOSE, atol=CLOSE)
        _hold(same, asked, wrong, because, "the inverse of `constrain`")
        values = Layout(jax.eval_shape(model.constrain, model.latents))
        if values.size == layout.size:
            jacobian = jax.jacfwd(lambda u: values.ravel(model.constrain(layout.unravel(u))))(u)
            exact = float(jnp.linalg.slogdet(jacobian)[1])
            wrong = f"it says log |det dx/dz| = {float(log_det):.6g}, and the Jacobian of `constrain` has {exact:.6g}"
            same = abs(float(log_det) - exact) <= 1e-5 * (1 + abs(exact))
            _hold(same, f"`{name}.unconstrain`", wrong, because, "log |det dx/dz| summed over coordinates")


def _check_minibatches(model: AbstractModel, name: str, rows: Any, z: PyTree) -> None:
    n = len(jax.tree.leaves(rows)[0])
    whole = float(model.log_density(z, Batch(rows, None)))
    some = lambda i: jax.tree.map(lambda a: a[i : i + 1], rows)
    each = [float(model.log_density(z, Batch(some(i), jnp.full(1, float(n))))) for i in range(min(n, 50))]
    if n > 50:
        return
    wrong = f"the mean over single rows, scaled up, is {np.mean(each):.6g}, and of all rows it is {whole:.6g}"
    instead = "log prior + sum of weight x log likelihood a row; or no such fact"
    same = abs(np.mean(each) - whole) <= 1e-6 * (1 + abs(whole))
    _hold(same, f"log_density of `{name}` on minibatches", wrong, "it promises MINIBATCH", instead)


# ---- families -------------------------------------------------------------------------------------------------------
def check_family(family: Any, latents: PyTree = (2,), rows: Any = None, *, seed: int = 0) -> None:
    """That a family keeps what its facts promise, for latents of these shapes.

    Checks:     sizing keeps its class; draws and their densities agree however they are made; the density is that of the
                draws: by the Jacobian of `transform` where its noise is as large as the draw, else by importance sampling from
                kernels around the draws; states have mass 1; entropy, moments and the zero mean of the score are as the draws
                have them; a fit of it is saved and read again.
    Arguments:  family: an object or a class.   latents: shapes, a tree of them, or of ShapeDtypeStruct.
                rows: for a family that reads a row.
    Raises:     Wrong; ModelError where it does not fit the latents.
    """
    with jax.enable_x64(True):
        spec = _specs(latents)
        made = family() if isinstance(family, type) else family
        sized = made.bind(spec, rows, jr.key(seed))
        name = type(made).__name__
        because = "what a subclass writes anew would be lost"
        kept = isinstance(sized, type(made))
        _hold(kept, f"`{name}.bind`", f"it gives a `{type(sized).__name__}`", because, "type(self)(...)")
        row = None if rows is None else jax.tree.map(lambda a: a[0], rows)
        q = sized(row)
        draws = _check_draws(q, name, jr.key(seed))
        if Fact.LOG_PROB in q.facts:
            _check_density(q, name, draws, jr.key(seed + 1))
        _check_promises(q, name, draws)
    if rows is None:
        _check_it_fits(made, sized, spec, seed)


def _specs(latents: PyTree) -> PyTree:
    shape = lambda s: isinstance(s, tuple) and all(isinstance(n, int) for n in s)
    known = lambda s: s if isinstance(s, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(s, jnp.float64)
    return jax.tree.map(known, latents, is_leaf=lambda s: shape(s) or isinstance(s, jax.ShapeDtypeStruct))


def _flat(tree: PyTree) -> Any:
    return jax.vmap(lambda one: ravel_pytree(one)[0])(tree)


def _check_draws(q: AbstractDistribution, name: str, key: Any) -> PyTree:
    """Draws, leading axis N, made in one call and one by one alike."""
    noise = q.noise(key, (N,))
    draws = jax.jit(jax.vmap(q.transform))(noise)
    one = q.transform(jax.tree.map(lambda a: a[0], noise))
    because = "fits run compiled and mapped"
    same = np.allclose(ravel_pytree(one)[0], _flat(draws)[0], rtol=CLOSE, atol=CLOSE)
    _hold(
        same, f"`{name}.transform`", "compiled and mapped it gives other draws", because, "a pure function in jax.numpy"
    )
    finite = bool(jnp.isfinite(_flat(draws)).all())
    _hold(finite, f"`{name}.transform`", "some draws are not finite", "they are latents", "a map into finite numbers")
    if Fact.LOG_RATIO in q.facts:
        again, at_once = jax.jit(jax.vmap(q.transform_and_log_ratio))(noise)
        of_draws = jax.jit(jax.vmap(q.log_ratio))(draws)
        same = np.allclose(_flat(again), _flat(draws), atol=CLOSE) and np.allclose(at_once, of_draws, atol=1e-5)
        wrong, instead = "it differs from `transform` and `log_ratio`", "the same two, or do not write it"
        _hold(same, f"`{name}.transform_and_log_ratio`", wrong, "path gradients use it", instead)
    return draws


def _check_density(q: AbstractDistribution, name: str, draws: PyTree, key: Any) -> None:
    log_q = jax.jit(jax.vmap(q.log_prob))(draws)
    asked, because = f"`{name}.log_prob`", "log p - log q would be no bound on anything"
    _hold(jnp.isfinite(log_q).all(), asked, "it is not finite at draws of q", because, "the log density of `transform`")
    if Fact.ENUMERABLE in q.facts:
        mass = float(jnp.exp(jax.vmap(q.log_prob)(q.support())).sum())
        _hold(abs(mass - 1) < CLOSE, asked, f"the states of its support have mass {mass:.6g}", because, "probabilities")
        return
    if any(q.kind_of(site) in ("binary", "category") for site in _sites(q, draws)):
        states = np.unique(np.asarray(_flat(draws)), axis=0)
        mass = float(jnp.exp(jax.vmap(q.log_prob)(jax.vmap(_unraveler(draws))(states))).sum())
        wrong = f"the {len(states)} states that {N:,} draws of it saw have mass {mass:.4g}"
        holds = mass < 1 + CLOSE and (len(states) > N // 20 or mass > 0.99)
        _hold(holds, asked, wrong, because, "probabilities, of these draws")
        return
    exact = _by_jacobian(q, key)
    if exact is not None:
        found, jacobian = exact
        off = float(jnp.abs(found - jacobian).max())
        wrong = f"it is off by up to {off:.3g} nats from log p(noise) - log |det d transform|"
        _hold(off < 1e-4 * (1 + float(jnp.abs(found).max())), asked, wrong, because, "the log density of `transform`")
        return
    z = _by_kernels(q, draws, key)
    wrong = f"its mass, mean and mean square are up to {z:.1f} standard errors from those of its draws"
    _hold(z < Z, asked, wrong, because, "a density that is normalised, and of these draws")


def _sites(q: AbstractDistribution, draws: PyTree) -> list[str]:
    latent = q.latent(jax.tree.map(lambda a: a[0], draws))
    return list(latent) if isinstance(latent, dict) else ["z"]


def _unraveler(draws: PyTree) -> Any:
    return ravel_pytree(jax.tree.map(lambda a: a[0], draws))[1]


def _by_jacobian(q: AbstractDistribution, key: Any) -> tuple[Any, Any] | None:
    """(log_prob of some draws, what the change of variables says), where the noise is real and as large as the draw."""
    laws = jax.tree.leaves(q.noise_law(), is_leaf=lambda law: isinstance(law, StandardNormal | Uniform))
    if not all(isinstance(law, StandardNormal | Uniform) for law in laws) or Fact.REPARAMETERISED not in q.facts:
        return None
    noise = q.noise(key)
    flat, unravel = ravel_pytree(noise)
    if flat.size != ravel_pytree(q.transform(noise))[0].size:
        return None

    def one(noise):
        e, _ = ravel_pytree(noise)
        jacobian = jax.jacfwd(lambda e: ravel_pytree(q.transform(unravel(e)))[0])(e)
        own = [
            -0.5 * (a**2 + math.log(2 * math.pi)).sum()
            for a, law in _pairs(noise, q)
            if isinstance(law, StandardNormal)
        ]
        return q.log_prob(q.transform(noise)), sum(own, 0.0) - jnp.linalg.slogdet(jacobian)[1]

    return jax.vmap(one)(q.noise(key, (20,)))


def _pairs(noise: PyTree, q: AbstractDistribution) -> Iterator[tuple[Any, Any]]:
    laws = jax.tree.leaves(q.noise_law(), is_leaf=lambda law: isinstance(law, StandardNormal | Uniform))
    return zip(jax.tree.leaves(noise), laws, strict=True)


def _by_kernels(q: AbstractDistribution, draws: PyTree, key: Any) -> float:
    """How far E_r[(q / r) f] is from the mean of f over q's draws, in standard errors, for r a mixture of wide kernels around
    some of them, and f one, each standardised coordinate, and its square."""
    x, unravel = _flat(draws), _unraveler(draws)
    mean, sd = x.mean(0), x.std(0) + 1e-300
    own = (x - mean) / sd
    centres, pick, noise = own[:KERNELS], *jr.split(key)
    at = centres[jr.randint(pick, (N,), 0, KERNELS)] + WIDTH * jr.normal(noise, (N, own.shape[1]))
    kernels = lambda u: jax.nn.logsumexp(-0.5 * (((u - centres) / WIDTH) ** 2).sum(-1))
    log_r = jax.lax.map(kernels, at, batch_size=1000) - math.log(KERNELS)
    log_r -= own.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(WIDTH)) + jnp.log(sd).sum()
    ratio = jnp.exp(jax.jit(jax.vmap(q.log_prob))(jax.vmap(unravel)(mean + sd * at)) - log_r)[:, None]
    f = lambda u: jnp.concatenate([jnp.ones((len(u), 1)), jnp.tanh(u), jnp.tanh(u**2)], 1)
    one, other = ratio * f(at), f(own[KERNELS:])
    error = jnp.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    return float((jnp.abs(one.mean(0) - other.mean(0)) / (error + 1e-9)).max())


def _check_promises(q: AbstractDistribution, name: str, draws: PyTree) -> None:
    x, n = _flat(draws), N
    if Fact.ENTROPY in q.facts:
        log_q = jax.jit(jax.vmap(q.log_prob))(draws)
        off, error = float(q.entropy() + log_q.mean()), float(log_q.std()) / math.sqrt(n)
        wrong = f"it is {float(q.entropy()):.4f}, and -E log q is {-float(log_q.mean()):.4f}"
        _hold(
            abs(off) < Z * error + CLOSE, f"`{name}.entropy`", wrong, "it promises ENTROPY", "-E log q; or no such fact"
        )
    if Fact.MOMENTS in q.facts:
        mean, variance = (ravel_pytree(m)[0] for m in q.moments())
        sd = x.std(0)
        far = jnp.abs(mean - x.mean(0)) / (sd + 1e-300)
        kurtosis = ((x - x.mean(0)) ** 4).mean(0) / (sd + 1e-300) ** 4
        spread = jnp.abs(variance / (sd**2 + 1e-300) - 1) / jnp.sqrt(jnp.maximum(kurtosis - 1, 1e-2))
        wrong = f"means are off by {float(far.max()):.3g} sd from its draws', variances by {float(spread.max()):.3g}"
        holds = max(float(far.max()), float(spread.max())) < Z / math.sqrt(n) + CLOSE
        _hold(holds, f"`{name}.moments`", wrong, "it promises MOMENTS", "mean and variance; or no such fact")
    if Fact.ZERO_MEAN_SCORE in q.facts:
        params, rest = split_trainable(q)
        score = jax.vmap(lambda z: ravel_pytree(jax.grad(lambda p: eqx.combine(p, rest).log_ratio(z))(params))[0])
        s = jax.jit(score)(jax.lax.stop_gradient(jax.tree.map(lambda a: a[:4000], draws)))
        z = float((jnp.abs(s.mean(0)) / (s.std(0) / math.sqrt(len(s)) + 1e-9)).max()) if s.size else 0.0
        wrong = f"its mean is {z:.1f} standard errors from 0"
        instead = "a normalised log density of all trained arrays; or no such fact"
        _hold(z < Z, f"the score of `{name}`", wrong, "it promises ZERO_MEAN_SCORE", instead)


def _check_it_fits(made: AbstractFamily, sized: AbstractFamily, spec: PyTree, seed: int) -> None:
    if any(sized.kind_of(site) != "real" for site in (spec if isinstance(spec, dict) else {"z": spec})):
        return
    shapes = jax.tree.map(lambda s: s.shape, spec)
    model = LogDensity(lambda z: -0.5 * sum(jnp.sum((a - 1.0) ** 2) for a in jax.tree.leaves(z)), shapes)
    found = fit(model, family=made, n_steps=20, optimizer=1e-2, n_draws=200, seed=seed, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        again = load(found.save(folder), model=model, family=found.family)
    same = all(map(np.array_equal, jax.tree.leaves(again.sample(3)), jax.tree.leaves(found.sample(3))))
    name = type(made).__name__
    _hold(
        same,
        f"a saved fit of `{name}`",
        "it gives other draws",
        "a fit is kept",
        "arrays and static settings as fields",
    )


# ---- plans and estimators -------------------------------------------------------------------------------------------
def check_plan(plan: AbstractPlan, *, seed: int = 0) -> None:
    """That each draw of a plan has the law it was asked for, by Kolmogorov and Smirnov's test at the level 1e-6 a column, in
    the shape that was asked for, and not the same for two rows.

    Raises: Wrong.
    """
    name = type(plan).__name__
    laws = StandardNormal((2,)), Uniform(())
    draw = jax.jit(jax.vmap(lambda key: plan.draw(key, laws, (4, 3))))
    if Fact.FRESH not in plan.facts:
        return
    normal, uniform = draw(jr.split(jr.key(seed), 4000))
    shapes = normal.shape[1:], uniform.shape[1:]
    _hold(
        shapes == ((4, 3, 2), (4, 3)), f"`{name}.draw`", f"shapes {shapes}", "draws lead, then the plate", "(K, *plate)"
    )
    for i in range(4):
        for column, law in ((normal[:, i, 0, 0], "norm"), (normal[:, i, 1, 1], "norm"), (uniform[:, i, 0], "uniform")):
            p = kstest(np.asarray(column), law).pvalue
            wrong = f"draw {i} has another law (p = {p:.2g})"
            _hold(
                p > 1e-6, f"`{name}.draw`", wrong, "every estimate would be biased", "each draw marginally of the law"
            )
    different = len(np.unique(np.asarray(uniform[0]))) == uniform[0].size
    _hold(different, f"`{name}.draw`", "rows share noise", "their gradients would be correlated", "noise for each row")


def check_estimator(estimator: AbstractEstimator, *, seconds: float = 5.0, seed: int = 0) -> None:
    """That a gradient estimator that declares no bias has none, on the first of some small problems (a Gaussian, bits, a
    decoder) that the judge lets it have.

    Method:     `gradient_lab`, against exact gradients where states can be listed, else against jensen's own unbiased
                estimators, at the level .001.
    Raises:     Wrong; IncompatibleComposition where no problem takes it.
    """
    name, reasons = type(estimator).__name__, []
    bits = lambda b: 2.0 * (b * jnp.array([1.0, -1.0])).sum() - b[0] * b[1]
    normal = lambda z: -0.5 * ((z - jnp.array([1.0, -1.0])) ** 2).sum() - 0.1 * z[0] ** 4
    decoder = LatentVariable.mlp(jr.key(seed), 2, (4,), hidden=(3,))
    problems: list[tuple[Any, Any, Any]] = [
        (LogDensity(normal, 2), MeanField(), None), (LogDensity(bits, 2), Bernoulli(), None),
        (decoder, None, (jr.uniform(jr.key(seed), (20, 4)) < 0.5).astype(jnp.float32)),
    ]  # fmt: skip
    beside = {"pathwise": Pathwise(), "leave-one-out": LeaveOneOut(), "score": ScoreFunction()}
    for model, family, rows in problems:
        try:
            lab = gradient_lab(
                model,
                family,
                data=rows,
                estimators=beside | {"own": estimator},
                plans="IID",
                seconds=seconds,
                seed=seed,
                at=("start",),
            )
        except JensenError as error:
            reasons.append(str(error))
            continue
        own = [r for r in lab.readings if r.estimator == "own"]
        for reading in own:
            wrong = f"its mean is off from the gradient: {reading.bias}"
            holds = not (reading.declared_unbiased and reading.bias.seen)
            _hold(
                holds,
                f"`{name}`",
                wrong,
                "it declares no bias",
                "the right mean; or unbiased = False, said in its docs",
            )
        if own:
            return
        reasons += [r.reason for r in lab.refused if r.estimator == "own"]
    raise IncompatibleComposition(
        explain(f"checking `{name}`", "no problem takes it", "; ".join(reasons[:2]), "other facts")
    )


# ---- methods --------------------------------------------------------------------------------------------------------
def check_method(method: Any, *, seed: int = 0) -> None:
    """That a method on one latent vector is one like jensen's.

    Checks:     it has a name; it refuses a model with a latent for each row, or fits it; the same seed gives the same draws;
                a budget of evaluations holds within a half more; a fit is saved and read again; and of five posteriors whose
                moments are known (correlated, skewed, long-tailed, a funnel, two modes) none is RELIABLE and wrong.
    Arguments:  method: an object, a class or a name.
    Raises:     Wrong.
    """
    made: AbstractMethod = method_named(method)
    name = made.label
    asked = f"method {name!r}"
    for label, (density, size, mean, sd) in _posteriors().items():
        model = LogDensity(density, size)
        found = fit(model, method=made, seed=seed, progress=False)
        if str(found.verdict) != "RELIABLE":
            continue
        marked = found.summary()["undetermined"].to_numpy()
        x = np.asarray(found.draws, float).reshape(-1, size)
        off = np.abs(x.mean(0) - mean) / sd > MEAN + Z / math.sqrt(len(x))
        wide = np.abs(x.std(0) / sd - 1) > SD + Z / math.sqrt(len(x))
        silent = ((off | wide) & (marked == "")).any()
        wrong = f"on a posterior that is {label} it is RELIABLE, with means {x.mean(0)[:3]} and sds {x.std(0)[:3]}"
        because = f"they are {np.broadcast_to(mean, size)[:3]} and {np.broadcast_to(sd, size)[:3]}"
        _hold(not silent, asked, wrong, because, "a q that weights can judge: one with tails at least as heavy")
    _check_habits(made, asked, seed)


def _posteriors() -> dict[str, tuple[Any, int, Any, Any]]:
    """{what it is: (log density, dimension, means, sds)}."""
    root = np.array([[1.0, 0.0, 0.0], [0.9, 0.5, 0.0], [-1.0, 0.3, 2.0]])
    inverse = np.linalg.inv(root)
    mixture = lambda z: jnp.logaddexp(
        math.log(0.3) - 0.5 * jnp.sum((z + 3.0) ** 2), math.log(0.7) - 0.5 * jnp.sum((z - 3.0) ** 2)
    )
    funnel = lambda z: -0.5 * z[0] ** 2 - 0.5 * jnp.sum(z[1:] ** 2 * jnp.exp(-z[0])) - 0.5 * (z.size - 1) * z[0]
    gumbel = 0.5772156649015329
    return {
        "correlated": (lambda z: -0.5 * jnp.sum((inverse @ (z - 1.0)) ** 2), 3, 1.0, np.linalg.norm(root, axis=1)),
        "skewed": (lambda z: jnp.sum(-z - jnp.exp(-z)), 2, gumbel, math.pi / math.sqrt(6)),
        "long-tailed": (lambda z: -4.5 * jnp.sum(jnp.log1p(z**2 / 8)), 2, 0.0, math.sqrt(8 / 6)),
        "a funnel": (funnel, 4, 0.0, np.array([1.0, *[math.exp(0.25)] * 3])),
        "of two modes": (mixture, 2, 1.2, math.sqrt(1 + 9 - 1.2**2)),
    }


def _check_habits(made: AbstractMethod, asked: str, seed: int) -> None:
    density, size, *_ = _posteriors()["correlated"]
    model = LogDensity(density, size)
    first, second = (fit(model, method=made, seed=seed, progress=False) for _ in range(2))
    same = np.array_equal(first.sample(10), second.sample(10))
    _hold(
        same, asked, "the same seed gives other draws", "results must be repeatable", "random numbers from `seed` alone"
    )
    limit = 400
    short = fit(model, method=made, seed=seed, progress=False, budget=f"evaluations:{limit}")
    used = short.options.get("evaluations", 0)
    instead = "evaluations by `target`, which counts them, and `target.budget.spent` looked at between steps"
    _hold(used <= 1.5 * limit, asked, f"with a budget of {limit} it took {used}", "budgets hold", instead)
    with tempfile.TemporaryDirectory() as folder:
        again = load(first.save(folder), model=model)
    same = np.array_equal(again.sample(10), first.sample(10))
    _hold(same, asked, "a saved fit gives other draws", "a fit is kept", "a q of `jensen.families` or Gaussians")
    decoder = LatentVariable.mlp(jr.key(seed), 2, (4,), hidden=(3,))
    rows = (jr.uniform(jr.key(seed), (20, 4)) < 0.5).astype(jnp.float32)
    try:
        fit(decoder, rows, method=made, seed=seed, progress=False, budget=f"evaluations:{limit}")
    except JensenError:
        return
    except Exception as error:
        wrong = f"on a model with a latent for each row it fails with {type(error).__name__}: {error}"
        raise Wrong(
            explain(asked, wrong, "what a method cannot do is refused", "`problems(task)` that says so")
        ) from error
