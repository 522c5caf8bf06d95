"""The set of posteriors: exact densities against their draws, the rule of what is solved and what is silent, the choices."""

import argparse
import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest

from benchmarks.posteriors import check, choices, constrained, hierarchies, models, priced, registry
from benchmarks.posteriors.densities import Density, mixture
from benchmarks.posteriors.moments import REFERENCES, Moments, located
from benchmarks.posteriors.quality import printed_errors, quality, undetermined
from benchmarks.posteriors.reference import stored
from benchmarks.posteriors.run import totals

SAMPLED = {
    "modes_3_in_5", "funnels_two_levels", "helix", "wedge", "box_sheared_3", "simplex_4", "ring_ellipse", "t2_together_5",
    "spikes_aside_in_5", "labels_3_of_2",
}  # fmt: skip


def worst(density, n):
    return {name: np.abs(z).max() for name, z in check.exact_scores(density, n).items()}


@pytest.mark.parametrize(
    "name", [n if n in SAMPLED else pytest.param(n, marks=pytest.mark.slow) for n in registry.DENSITIES]
)
def test_draws_fit_their_density(name):
    scores = worst(registry.DENSITIES[name](), 4_000 if name in SAMPLED else check.N_DRAWS)
    assert max(scores.values()) < check.LIMIT_OF_MANY, scores


def normal_but(log_density=None, sd=1.0, center=0.0, smooth=True):
    """A standard normal, of which something is said that is not so."""
    plain = lambda z: -0.5 * (z**2).sum()
    draws = lambda rng, n: sd * rng.standard_normal((n, 2))
    return Density(2, log_density or plain, np.full(2, center), np.ones(2), draws, smooth=smooth)


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"log_density": lambda z: -0.5 * ((z / 1.1) ** 2).sum()}, {"sd": 1.1}, {"center": 0.1},
        {"log_density": lambda z: jax.numpy.where(z[0] > -1.5, -0.5 * (z**2).sum(), -jax.numpy.inf), "smooth": False},
    ],
    ids=["nothing", "wider density", "wider draws", "another centre", "a wall that draws ignore"],
)  # fmt: skip
def test_what_does_not_fit_is_seen(wrong):
    found = max(worst(normal_but(**wrong), check.N_DRAWS).values())
    assert found > check.LIMIT_OF_MANY if wrong else found < check.LIMIT


def test_every_name_is_of_one_group_and_half_of_each_kind_is_held_out():
    groups = [registry.names(group) for group in registry.GROUPS]
    assert sum(map(len, groups)) == len(set().union(*groups)) == len(registry.names()) >= 240
    by_kind = itertools.groupby(sorted(registry.SHAPES.values(), key=lambda s: s.kind), key=lambda s: s.kind)
    halves = {kind: [s.held_out for s in found] for kind, found in by_kind}
    assert len(halves) == 10 and all(len(h) == 10 and sum(h) == 5 for h in halves.values())
    for entries in (hierarchies.ENTRIES, priced.ENTRIES):
        held_out = [e.held_out for e in entries.values()]
        assert len(held_out) >= 40 and abs(2 * sum(held_out) - len(held_out)) <= 1
    assert len(models.names()) == 14 and len(constrained.POSTERIORS) == 60


HAVE_ONE = [
    n for n in stored() if n not in priced.ENTRIES or (REFERENCES / f"{n}.json").is_file()
]  # some cost too much


@pytest.mark.parametrize("name", [n for n in HAVE_ONE if not registry.ENTRIES[n].needs_data])
def test_references_belong_to_their_data_and_are_settled(name):
    reference = registry.load(name).reference()
    assert reference.rhat.max() < 1.02 and reference.ess.min() > 1000 and (reference.spread > 0).all()


@pytest.mark.parametrize(
    "name",
    [
        "gp_classes_100",
        "drug_by_formula",
        "level_2000_steps",
        "spike_and_slab_50",
        "two_lines_2000_rows",
        "counts_500_groups",
    ],
)
def test_costly_ones_have_a_density(name):
    """At a draw from the prior, and a gradient there; data are in single precision."""
    from numpyro.infer.initialization import init_to_sample
    from numpyro.infer.util import initialize_model

    problem = registry.load(name)
    assert all(a.dtype in (np.float32, np.int32) for a in problem.args)
    at = initialize_model(jax.random.key(1), problem.model, init_strategy=init_to_sample, model_args=problem.args)
    density = problem.log_density()
    value, gradient = jax.jit(jax.value_and_grad(density))(at.param_info.z)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_whitened_draws_are_draws_of_the_model():
    """The density of z is the model's, of the draw it stands for, but for a constant."""
    from numpyro.infer.util import log_density

    problem = registry.load("level_2000_steps")
    with jax.enable_x64(True):
        sampler, model = problem.entry.sampler, problem.jensen()
        z = np.random.default_rng(0).standard_normal((1, 3, 2))
        own = [float(log_density(sampler, problem.args, {}, {"z": row})[0]) for row in z[0]]
        found = problem.entry.convert({"z": z})
        draws = [{site: found[site][0, i] for site in model.latents} for i in range(3)]
        theirs = [float(model.log_density(model.unconstrain(d)[0], None)) for d in draws]
    np.testing.assert_allclose(np.diff(own), np.diff(theirs), rtol=1e-6)
    assert np.abs(np.diff(own) + 0.5 * np.diff((z[0] ** 2).sum(-1))).max() < 0.2  # about standard normal


@pytest.mark.parametrize("name", ["counts_50000_rows", "areas_counts_100"])
def test_cheaper_forms_differ_by_a_constant(name):
    """From the model: at three places."""
    from numpyro.infer.util import log_density

    with jax.enable_x64(True):
        problem, rng = registry.load(name), np.random.default_rng(0)
        form, model, found = problem.entry.sampler.model, problem.jensen(), []
        for _ in range(3):
            u = {k: jax.numpy.array(0.3 * rng.standard_normal(v.shape), float) for k, v in model.latents.items()}
            x = model.constrain(u)
            stretch = 0.0  # of effects by their standard deviation
            if "effect" in x:
                stretch = -0.5 * len(x["effect"]) * jax.numpy.log(x["precision"])
                x = x | {"z": x["effect"] * jax.numpy.sqrt(x["precision"])}
            cheap, direct = (log_density(m, problem.args, {}, x)[0] for m in (form, problem.model))
            found.append(float(cheap - direct - stretch))
    np.testing.assert_allclose(found, found[0], rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("name", ["gp_rbf_300", "gp_matern_500"])
def test_cheaper_forms_of_a_process_are_the_process(name):
    """The log density, which the reference computes by basis functions or by a filter."""
    from numpyro.infer.util import log_density

    with jax.enable_x64(True):
        problem = registry.load(name)
        for length in (0.6, 1.2):
            at = {k: jax.numpy.array(v, float) for k, v in {"length": length, "amplitude": 1.1, "noise": 0.3}.items()}
            forms = problem.model, problem.entry.sampler.model
            direct, cheap = (float(log_density(m, problem.args, {}, at)[0]) for m in forms)
            np.testing.assert_allclose(cheap, direct, rtol=1e-7)


def test_standardised_and_centred_are_one_model():
    """The log density of the effects is that of their standardised form, less the logarithm of the scale of each."""
    import jensen as jn

    entry = hierarchies.ENTRIES["studies_half_cauchy"]
    args = entry.data(None)
    centred, other = (jn.from_numpyro(m, *args) for m in (entry.model, entry.sampler))
    mu, log_tau, z = 0.3, np.log(0.2), np.random.default_rng(0).standard_normal(12)
    theta = {"mu": np.array(mu), "tau": np.array(log_tau), "theta": mu + np.exp(log_tau) * z}
    there = {"mu": np.array(mu), "tau": np.array(log_tau), "theta_z": z}
    gap = centred.log_density(theta, None) - other.log_density(there, None)
    np.testing.assert_allclose(gap, -12 * log_tau, rtol=1e-6)


def a_fit(draws, verdict="RELIABLE", marks=("", ""), printed=None):
    """What `quality` reads of a fit of two coordinates."""
    mean, sd = located(draws) if printed is None else printed
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
    mean, sd = np.where(np.array(marks) == "mean, sd", np.nan, mean), np.where(np.array(marks) != "", np.nan, sd)
    columns = {"mean": mean, "sd": sd, "5%": low, "50%": middle, "95%": high, "undetermined": marks}
    diagnosis = SimpleNamespace(ess=1.0, n_draws=len(draws), details={})
    return SimpleNamespace(
        summary=lambda: pd.DataFrame(columns, index=["z[0]", "z[1]"]), diagnosis=diagnosis, verdict=verdict, reasons=[], why="",
        options={}, khat=0.0, elbo=0.0, log_evidence=0.0, history=[], trail=[],
    )  # fmt: skip


def problem_of(density):
    reference = lambda: Moments(
        ["z[0]", "z[1]"], density.center, density.spread, density.measure, *[None] * 2, {}, *quantiles
    )
    quantiles = located(density.draws(np.random.default_rng(1), 100_000), "quantiles")
    return registry.Problem("two", density.model(), (), {}, reference, "classic", reported=density.mean_and_sd)


def test_solved_silent_and_marked():
    right = mixture([1.0], [[1.0, -2.0]], [np.diag([1.0, 4.0])])
    problem, rng = problem_of(right), np.random.default_rng(0)
    draws = right.draws(rng, 4_000)
    row = quality(a_fit(draws), draws, problem)
    assert row["solved"] and not row["silent"] and not row["wrong"]
    short = draws * [1.0, 0.8] - [0.0, 0.4]  # an sd a fifth too small: wrong, said or not
    row = quality(a_fit(short), short, problem)
    assert not row["solved"] and row["silent"] and row["wrong"] == ["z[1]"]
    assert not quality(a_fit(short, "DOUBTFUL"), short, problem)["silent"]
    told = (np.array([1.0, -2.0]), np.array([1.0, 2.6]))  # right draws, a wrong number in the table
    row = quality(a_fit(draws, printed=told), draws, problem)
    assert row["solved"] and row["silent"] and row["wrong"] == ["z[1]"]
    assert not quality(a_fit(draws, marks=("", "sd"), printed=told), draws, problem)["silent"]
    far = draws.copy()
    far[:3, 1] += 400.0  # three draws far out in a tail: the sd is off, the quantiles are not
    assert (
        not quality(a_fit(far), far, problem)["solved"]
        and quality(a_fit(far, marks=("", "sd")), far, problem)["solved"]
    )
    row = quality(a_fit(short, marks=("", "mean, sd")), short, problem)  # a mark excuses no wrong quantile
    assert not row["solved"] and row["silent"] and row["wrong"] == []


def test_a_number_for_what_does_not_exist_is_wrong_unless_marked():
    cauchy = registry.DENSITIES["t1_together_2"]()
    problem, draws = problem_of(cauchy), cauchy.draws(np.random.default_rng(0), 40_000)
    assert quality(a_fit(draws), draws, problem)["silent"]
    row = quality(a_fit(draws, marks=("mean, sd", "mean, sd")), draws, problem)
    assert row["solved"] and not row["silent"]
    assert quality(a_fit(draws, marks=("sd", "mean, sd")), draws, problem)["wrong"] == ["z[0]"]


def test_marks_of_other_coordinates_do_not_count():
    """A scale is printed by its site's name, and is not the coordinate of that name."""
    log_tau = {"tau": np.random.default_rng(0).normal(2.0, 1.0, 500), "x": np.arange(500.0)}
    table = pd.DataFrame(
        {"50%": [np.exp(np.median(log_tau["tau"])), 249.5], "undetermined": ["sd", "sd"]}, index=["tau", "x"]
    )
    np.testing.assert_array_equal(undetermined(table, log_tau, ["tau", "x"]), [False, True])


def test_constants_have_no_spread():
    table = pd.DataFrame({"mean": [1.0, 0.3], "sd": [0.0, 0.2], "5%": [1.0, 0.0], "50%": [1.0, 0.3], "95%": [1.0, 0.6]})
    errors, wrong = printed_errors(table, np.array([1.0, 0.3]), np.array([0.0, 0.2]))
    assert not wrong and errors.solved
    assert printed_errors(table, np.array([0.9, 0.3]), np.array([0.0, 0.2]))[1] == ["0"]


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    choices.add_choices(parser)
    return parser.parse_args([*arguments, "--root", "nowhere"])


def test_choices_and_parts():
    parts = [choices.chosen(parsed("--group", "shapes", "--shard", f"{i}/3")) for i in (1, 2, 3)]
    assert (
        sorted(itertools.chain(*parts)) == sorted(registry.SHAPES) and max(map(len, parts)) - min(map(len, parts)) <= 1
    )
    tails = choices.chosen(parsed("--kind", "tails", "--held-out"))
    assert len(tails) == 5 and all(registry.SHAPES[n].held_out for n in tails)
    assert not set(models.names()) & set(choices.chosen(parsed()))  # their data are nowhere
    for wrong in ("0/3", "4/3", "x"):
        with pytest.raises(SystemExit):
            parsed("--shard", wrong)


def test_the_table_counts_kinds_and_those_beside():
    row = {"budget": "none", "seed": 0, "evaluations": 100, "seconds_first": 1.0, "silent": False, "held_out": None}
    peer = lambda **found: {"beside": {"peer": "nuts", **found}}
    rows = [
        row | {"posterior": "a", "kind": "walls", "solved": True, "verdict": "RELIABLE"} | peer(solved=False),
        row | {"posterior": "b", "kind": "boxes", "solved": False, "verdict": "DOUBTFUL"} | peer(solved=True),
        row | {"posterior": "c", "kind": "boxes", "error": "ValueError"} | peer(error="none"),
    ]
    text = "\n".join(totals(rows))
    assert "solved 1 here, 1 there; here alone 1" in text and "there alone 1: b (0)" in text
    assert any(line.split()[:4] == ["none,", "boxes", "2", "0"] for line in totals(rows))


PRIORS = {
    "studies_half_cauchy": ("tau", lambda tau: -np.log1p(tau**2)),
    "studies_of_no_scale": ("tau", lambda tau: -0.5 * tau**2),
    "studies_inverse_gamma": ("tau", lambda variance: -3 * np.log(variance) - 0.5 / variance),
}


@pytest.mark.parametrize("name", PRIORS)
def test_references_reach_the_neck(name):
    """The logarithm of a scale near zero, by quadrature: given it, effects and mean of a meta-analysis are normal."""
    (estimate, error), (site, log_prior) = hierarchies.ENTRIES[name].data(None), PRIORS[name]
    log = np.linspace(-25.0, 5.0, 30_001)
    own = np.exp(log)
    variance = error[:, None] ** 2 + (own if name == "studies_inverse_gamma" else own**2)
    precision = 0.25 + (1 / variance).sum(0)
    mean = (estimate[:, None] / variance).sum(0) / precision
    exponent = (estimate[:, None] ** 2 / variance).sum(0) - precision * mean**2
    log_p = log + log_prior(own) - 0.5 * (np.log(variance).sum(0) + np.log(precision) + exponent)
    weight = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    center = weight @ log
    spread = np.sqrt(weight @ (log - center) ** 2)
    found = Moments.read(REFERENCES / f"{name}.json")
    at, mu = found.names.index(site), found.names.index("mu")
    assert abs(found.center[at] - center) < 0.05 * spread and abs(found.spread[at] / spread - 1) < 0.05
    assert abs(found.center[mu] - weight @ mean) < 0.05 * found.spread[mu]
