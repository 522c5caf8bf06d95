"""Small examples of every exported class: what `jensen.cells` and the conformance tests are made of.

A new exported class needs one line in a table below; a test says so. Families come unsized; `cell_models` has the
models for the latents a family is for.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp

from . import families, gradients, models, objectives
from .cell_models import LATENTS, Reader, settings
from .families import (
    NICE,
    Amortised,
    Autoregressive,
    Bernoulli,
    Categorical,
    Concrete,
    ContinuousFlow,
    FullRank,
    GaussianCopula,
    GlobalLocal,
    Hierarchical,
    Householder,
    Implicit,
    InverseAutoregressive,
    Layers,
    LowRank,
    MaskedAutoregressive,
    MeanField,
    Mixture,
    Particles,
    Planar,
    Product,
    Radial,
    RealNVP,
    SemiImplicit,
    SinhArcsinh,
    Spline,
    Sylvester,
    Table,
    Univariate,
    VariationalGP,
)
from .families.base import AbstractFamily
from .gradients import (
    ARM,
    ARSM,
    LAX,
    NVIL,
    REBAR,
    RELAX,
    UIVI,
    Adversarial,
    DisARM,
    DoublyReparameterised,
    Enumerate,
    GeneralisedPathwise,
    GumbelSoftmax,
    KernelRatio,
    LeaveOneOut,
    MeasureValued,
    MuProp,
    Pathwise,
    RaoBlackwell,
    ScoreFunction,
    Sitewise,
    SpectralStein,
    StraightThrough,
    TaylorControl,
    plans,
)
from .gradients.base import AbstractEstimator
from .gradients.plans import AbstractPlan
from .models.base import AbstractModel
from .objectives import CUBO, ELBO, IWAE, Renyi
from .objectives.base import AbstractObjective
from .tree import Frozen


class Example(NamedTuple):
    """One object of an exported class.

    latents: which latents a family is for, a key of `LATENTS`.   also: others to try it on, wrapped or refused.
    """

    name: str
    part: Any
    latents: str = ""
    also: tuple[str, ...] = ()


def family_examples() -> dict[str, list[Example]]:
    """Unsized families; they start far from the posterior, so that no gradient vanishes."""
    normal = lambda: MeanField(scale=1.0)
    table = Example("GlobalLocal(MeanField, Table)", GlobalLocal(normal(), Table(normal())), "rows", ("real",))
    amortised = lambda q, n: Amortised(q, Reader(0.25 * jnp.sin(1.0 + jnp.arange(2.0 * n)).reshape(2, n)))
    univariate: dict[str, dict[str, Any]] = {
        "gamma": {"concentration": 2.0},
        "weibull": {"concentration": 1.5},
        "poisson": {"rate": 1.5},
    }
    mixed = lambda: Product({"w": normal(), "b": Bernoulli()})
    flow = lambda cls, n=2, **options: Example(cls.__name__, cls(n_layers=n, width=2, scale=1.0, **options), "real")
    small: dict[str, Any] = {"hidden": (2,), "activation": "tanh", "scale": 1.0, "n_noise": 1}
    near = MeanField((1,), scale=0.4)  # of small spread: what a network makes of it is smooth enough for few nodes
    semi = lambda: SemiImplicit(mixing=Frozen(near), n_mixing=1, **small)
    net = lambda q: Amortised(q, hidden=(2,), activation="tanh")
    hierarchical = lambda q: Hierarchical(near, net(q), net(MeanField(scale=0.4)))
    few = lambda cls: Example(cls.__name__, cls(n_layers=2, scale=1.0), "real")
    return {
        "MeanField": [Example("MeanField", normal(), "real", ("rows",))],
        "FullRank": [Example("FullRank", FullRank(scale=1.0), "real")],
        "LowRank": [Example("LowRank", LowRank(rank=1, scale=1.0), "real")],
        "Bernoulli": [Example("Bernoulli", Bernoulli(), "binary")],
        "Categorical": [Example("Categorical", Categorical(), "category")],
        "Concrete": [
            Example("Concrete", Concrete(temperature=2.0), "relaxed"),
            Example("Concrete(categories)", Concrete(temperature=2.0, categories=True), "relaxed category"),
        ],
        "Mixture": [
            Example("Mixture(FullRank)", Mixture(n=2, component=FullRank(scale=1.0)), "real"),
            Example("Mixture(Bernoulli)", Mixture(n=2, component=Bernoulli()), "binary"),
        ],
        "RealNVP": [flow(RealNVP)],
        "Spline": [flow(Spline, 1, knots=2)],
        "InverseAutoregressive": [flow(InverseAutoregressive)],
        "MaskedAutoregressive": [flow(MaskedAutoregressive)],
        "SinhArcsinh": [Example("SinhArcsinh", SinhArcsinh(scale=1.0), "real")],
        "GaussianCopula": [Example("GaussianCopula", GaussianCopula(SinhArcsinh(scale=1.0)), "real")],
        "Autoregressive": [
            Example("Autoregressive", Autoregressive({"w": normal(), "b": normal()}), "mixed"),
            Example("Autoregressive(Bernoulli)", Autoregressive({"h1": Bernoulli(), "h2": Bernoulli()}), "layers"),
        ],
        "Implicit": [Example("Implicit", Implicit(hidden=(3,)), "real")],
        "NICE": [flow(NICE)],
        "Planar": [few(Planar)],
        "Radial": [few(Radial)],
        "Sylvester": [few(Sylvester)],
        "Householder": [few(Householder)],
        "ContinuousFlow": [Example("ContinuousFlow", ContinuousFlow(width=2, depth=1, n_steps=2, scale=1.0), "real")],
        "SemiImplicit": [
            Example("SemiImplicit", semi(), "line"),
            Example("Amortised(SemiImplicit)", amortised(semi(), 2), "line"),
        ],
        "Particles": [Example("Particles", Particles(2, **small), "line")],
        "Hierarchical": [
            Example("Hierarchical", hierarchical(normal()), "line"),
            Example("Hierarchical(Bernoulli)", hierarchical(Bernoulli()), "binary"),
        ],
        "VariationalGP": [Example("VariationalGP", VariationalGP(2, nugget=0.5, reverse=net(normal())), "line")],
        "Layers": [
            Example("Layers", Layers(), "layers"),
            Example("Amortised(Layers)", amortised(Layers(), 2), "layers"),
        ],
        "Univariate": [
            Example(f"Univariate({n!r})", Univariate(n, **start), "line") for n, start in univariate.items()
        ],
        "Product": [Example("Product(MeanField, Bernoulli)", mixed(), "mixed")],
        "Amortised": [
            Example("Amortised(MeanField)", amortised(normal(), 4), "real", ("rows",)),
            Example("Amortised(Bernoulli)", amortised(Bernoulli(), 2), "binary"),
            Example("Amortised(Product)", amortised(mixed(), 4), "mixed"),
        ],
        "Table": [table],
        "GlobalLocal": [
            table,
            Example("GlobalLocal(MeanField, Amortised)", GlobalLocal(normal(), amortised(normal(), 2)), "rows"),
            Example(
                "GlobalLocal(MeanField, Table(Bernoulli))",
                GlobalLocal(normal(), Table(Product({"z": Bernoulli()}))),
                "rows",
            ),
        ],
    }


def objective_examples() -> dict[str, list[Example]]:
    return {
        "ELBO": [Example("ELBO()", ELBO())] + [Example(f'ELBO("{e}")', ELBO(e)) for e in ("entropy", "kl")],
        "IWAE": [Example("IWAE()", IWAE())],
        "Renyi": [Example(f"Renyi({a})", Renyi(a)) for a in (0.5, 1.0)],
        "CUBO": [Example("CUBO()", CUBO())],
    }


def gradient_examples() -> dict[str, list[Example]]:
    without = (Pathwise, DoublyReparameterised, LeaveOneOut, RaoBlackwell, MuProp, ARM, DisARM, ARSM)
    plain = {c.__name__: [Example(f"{c.__name__}()", c())] for c in without}
    plain["REBAR"] = [Example("REBAR()", REBAR()), Example("REBAR(0.3, 0.7)", REBAR(temperature=0.3, scale=0.7))]
    plain["RELAX"] = [
        Example("RELAX()", RELAX((3,))),
        Example("RELAX(temperature=None)", RELAX((3,), temperature=None)),
    ]
    plain |= {c.__name__: [Example(f"{c.__name__}()", c())] for c in (GumbelSoftmax, StraightThrough)}
    plain["LAX"] = [Example("LAX()", LAX((3,)))]
    plain |= {c.__name__: [Example(f"{c.__name__}()", c())] for c in (MeasureValued, GeneralisedPathwise)}
    plain["Adversarial"] = [
        Example(f"Adversarial({k!r})", Adversarial(k, hidden=(3,), steps=2)) for k in ("adaptive", "prior")
    ]
    plain["KernelRatio"] = [Example("KernelRatio()", KernelRatio())]
    plain["SpectralStein"] = [Example(f"SpectralStein({k!r})", SpectralStein(k)) for k in ("spectral", "stein")]
    plain["UIVI"] = [
        Example("UIVI()", UIVI(n_burn_in=1, n_keep=1, n_leapfrog=1)),
        Example('UIVI("importance")', UIVI("importance")),
    ]
    plain["NVIL"] = [Example("NVIL()", NVIL((3,)))]
    score = [
        Example(f"ScoreFunction({b!r})", ScoreFunction(b))
        for b in ("none", 0.5, "running-mean", "regression", "full-regression")
    ]
    taylor = [Example(f"TaylorControl({h!r})", TaylorControl(h)) for h in ("full", "products")]
    exact = Example("Sitewise(w: Pathwise, b: Enumerate)", Sitewise({"w": Pathwise(), "b": Enumerate()}))
    each = lambda w: Example(f"Sitewise(w: {type(w).__name__}, b: LeaveOneOut)", Sitewise({"w": w, "b": LeaveOneOut()}))
    rest = {
        "TaylorControl": taylor,
        "Sitewise": [each(Pathwise()), each(LeaveOneOut()), exact],
        "Enumerate": [Example("Enumerate()", Enumerate())],
    }
    return plain | {"ScoreFunction": score} | rest


def plan_examples() -> dict[str, list[Example]]:
    every = (plans.IID, plans.Antithetic, plans.Stratified, plans.QuasiMonteCarlo, plans.CommonRandomNumbers)
    return {c.__name__: [Example(f"{c.__name__}()", c())] for c in every}


def exported(package: ModuleType, base: type) -> dict[str, type]:
    """The concrete classes a package exports: its vocabulary."""
    public = {
        n: c
        for n, c in ((n, getattr(package, n)) for n in getattr(package, "__all__", vars(package)))
        if not n.startswith(("_", "Abstract"))
    }
    return {n: c for n, c in public.items() if isinstance(c, type) and issubclass(c, base)}


AXES: dict[str, tuple[ModuleType, type, Callable]] = {
    "family": (families, AbstractFamily, family_examples),
    "objective": (objectives, AbstractObjective, objective_examples),
    "gradient": (gradients, AbstractEstimator, gradient_examples),
    "plan": (plans, AbstractPlan, plan_examples),
}


def missing() -> list[str]:
    """Exported classes without an example."""
    shown = {type(s.model).__name__ for latents in LATENTS for s in settings(latents)}
    out = [f"models.{n}" for n in exported(models, AbstractModel) if n not in shown]
    return out + [f"{a}: {n}" for a, (p, base, e) in AXES.items() for n in exported(p, base) if not e().get(n)]


def examples(axis: str) -> dict[str, Example]:
    """Examples of the exported classes on one axis, by name."""
    package, base, make = AXES[axis]
    table = make()
    return {e.name: e for n in exported(package, base) for e in table.get(n, ())}
