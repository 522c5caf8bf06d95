"""Fits without fitting: a q with arbitrary parameters is as good to save as a fitted one."""

import jax
import numpy as np

from jensen.batch import Batch
from jensen.cell_examples import Example, examples
from jensen.cell_models import Setting, generic, settings
from jensen.diagnostics.checks import Check
from jensen.diagnostics.verdict import Diagnosis, Verdict
from jensen.families import Amortised, ContinuousFlow, InverseAutoregressive, RealNVP, Sylvester
from jensen.fit.attempt import Attempt
from jensen.fit.defaults import bind
from jensen.fit.result import Fit
from jensen.models import BlackBox


def fit_of(family, model, rows, **changes) -> Fit:
    """A `Fit` whose verdict and draws are made up."""
    diagnosis = Diagnosis(
        Verdict.DOUBTFUL,
        [Check("khat", 1, "a reason", 0.6, 0.5, 0.7)],
        0.6,
        0.4,
        -3.5,
        0.1,
        -3.25,
        float("inf"),
        7,
        {"worst": "z[0]", "shift": float("nan")},
    )
    spec = jax.tree.map(lambda s: s.shape, model.latents)
    lead = (7, 3) if model.plated else (7,)
    rng = np.random.default_rng(0)
    draws = jax.tree.map(
        lambda s: rng.normal(size=(*lead, *s)).astype(np.float32), spec, is_leaf=lambda s: isinstance(s, tuple)
    )
    numbers = {n: rng.normal(size=lead) for n in ("log_p", "log_q")} | {"history": rng.normal(size=11)}
    options = {"model": type(model).__name__, "family": type(family).__name__, "n_steps": 11, "batch_size": None}
    trail = [Attempt("MeanField", "DOUBTFUL", 0.6, float("-inf"), 0.5, "budget")]
    fields = dict(
        family=family, model=model, rows=rows, diagnosis=diagnosis, why="budget", seconds=1.5, step_size=None, seed=3,
        draws=draws, options=options, n_skipped=2, trail=trail, **numbers,
    )  # fmt: skip
    return Fit(**{**fields, **changes})


def fit_of_example(example: Example, setting: Setting) -> Fit:
    return fit_of(generic(bind(example.part, setting.model, setting.rows, 0)), setting.model, setting.rows)


def family_examples() -> dict[str, tuple[Example, Setting]]:
    """Every exported family, each with a model it is for; and flows that read an encoder."""
    flows = InverseAutoregressive(width=2), RealNVP(width=2), Sylvester(), ContinuousFlow(width=2, n_steps=2)
    read = {f"Amortised({type(q).__name__})": Amortised(q, hidden=(2,)) for q in flows}
    out = {}
    for name, example in (examples("family") | {n: Example(n, q, "real") for n, q in read.items()}).items():
        decoder = [s for s in settings(example.latents) if s.model.plated]
        plain = [s for s in settings(example.latents) if not isinstance(s.model, BlackBox)]  # code is not saved
        out[name] = example, (decoder[-1] if name.startswith("Amortised") else plain[0])
    return out


def same(a, b) -> None:
    """The same tree, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def log_q(fit: Fit, rows, u):
    """log q of unconstrained values, straight from the family."""
    return jax.vmap(fit.family(Batch(rows, None)).log_prob)(u)
