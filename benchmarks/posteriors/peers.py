"""Speed and quality of `jensen.fit` beside what else a user could run, on the same posteriors and references.

`python -m benchmarks.posteriors.peers [--root DIR] [--peers jensen nuts ...] [NAME ...]`: one fresh process for each
posterior and peer, interleaved, no compilation cache. First call: from the model function to draws, imports left out.
Later call: the same objects again with another seed. Errors are those of the later call's draws, as in `run.py`.

A peer is a function of the problem that returns `call(seed) -> draws`, the draws being unconstrained, a tree like the
model's latents with a leading axis; what it returns besides the draws, a dict, goes into the row.
"""

import argparse
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import surroundings
from benchmarks.posteriors.choices import add_choices, chosen
from benchmarks.posteriors.fresh import append, call
from benchmarks.posteriors.registry import Problem, load

N_DRAWS = 4096
NUTS_WARMUP, NUTS_DRAWS, NUTS_CHAINS = 1000, 1000, 4
SVI_STEPS, SVI_RATE = 10_000, 1e-2
N_PATHS = 8

Call = Callable[[int], tuple[Any, dict[str, Any]]]
PEERS: dict[str, tuple[Callable[[Problem], Call | None], tuple[str, ...]]] = {}


def peer(name: str, *needs: str):
    """Decorator that registers a peer under its name, with the packages it needs."""

    def register(setup):
        PEERS[name] = (setup, needs)
        return setup

    return register


@peer("jensen", "jensen")
def jensen(problem: Problem) -> Call:
    """`jensen.fit` with nothing chosen."""
    import jax

    import jensen as jn

    def run(seed):
        fit = jn.fit(problem.jensen(), seed=seed, progress=False)
        facts = {"verdict": str(fit.verdict), "rung": fit.options.get("method"), "khat": fit.khat}
        return jax.device_get(fit.draws), facts

    return run


def numpyro_form(problem: Problem) -> tuple[Callable, tuple, dict]:
    """A NumPyro function and its arguments, also for a log density: a flat site `z` and a factor."""
    from jensen.models.base import AbstractModel

    if not isinstance(problem.model, AbstractModel):
        return problem.model, problem.args, problem.kwargs
    import numpyro
    import numpyro.distributions as dist

    def model():
        shape = problem.model.latents.shape
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), shape))
        numpyro.factor("log_density", problem.exact.log_density(z))

    return model, (), {}


def unconstrained(problem: Problem, samples: dict[str, Any]) -> Any:
    """Draws of NumPyro in the coordinates of jensen's model, in float64."""
    import jax

    from jensen.models.base import AbstractModel

    if isinstance(problem.model, AbstractModel):
        return np.asarray(samples["z"])
    with jax.enable_x64(True):
        model = problem.jensen()
        values = {site: np.asarray(samples[site], np.float64) for site in model.latents}
        return jax.device_get(jax.vmap(lambda x: model.unconstrain(x)[0])(values))


@peer("numpyro-nuts", "numpyro")
def numpyro_nuts(problem: Problem) -> Call:
    """NUTS as it comes, four chains in one vectorised program; later calls reuse the `MCMC` object."""
    import jax
    from numpyro.infer import MCMC, NUTS

    model, args, kwargs = numpyro_form(problem)
    mcmc = MCMC(
        NUTS(model), num_warmup=NUTS_WARMUP, num_samples=NUTS_DRAWS, num_chains=NUTS_CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip

    def run(seed):
        mcmc.run(jax.random.key(seed), *args, extra_fields=("diverging",), **kwargs)
        samples = jax.block_until_ready(mcmc.get_samples())
        return samples, {"divergences": int(mcmc.get_extra_fields()["diverging"].sum())}

    return run


@peer("numpyro-full-rank", "numpyro")
def numpyro_full_rank(problem: Problem) -> Call:
    """`AutoMultivariateNormal`, 10,000 steps of Adam at 1e-2, no progress bar; later calls reuse the objects."""
    import jax
    import numpyro
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal

    model, args, kwargs = numpyro_form(problem)
    guide = AutoMultivariateNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(SVI_RATE), Trace_ELBO())

    def run(seed):
        result = svi.run(jax.random.key(seed), SVI_STEPS, *args, progress_bar=False, **kwargs)
        key = jax.random.key(seed + 1000)
        return jax.block_until_ready(guide.sample_posterior(key, result.params, sample_shape=(N_DRAWS,))), {}

    return run


def _start(latents: Any, key: Any, lead: tuple[int, ...] = ()) -> Any:
    """Uniform on (-2, 2) in each unconstrained coordinate, as Stan and NumPyro start."""
    import jax

    leaves, tree = jax.tree.flatten(latents)
    keys = jax.random.split(key, len(leaves))
    draw = lambda k, leaf: jax.random.uniform(k, (*lead, *leaf.shape), minval=-2.0, maxval=2.0)
    return jax.tree.unflatten(tree, [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])


@peer("blackjax-pathfinder", "blackjax")
def blackjax_pathfinder(problem: Problem) -> Call:
    """BlackJAX's single-path Pathfinder with its defaults."""
    import jax
    from blackjax.vi import pathfinder

    log_density, latents = problem.log_density(), problem.jensen().latents

    @jax.jit
    def program(key):
        start, fit, draw = jax.random.split(key, 3)
        state, _ = pathfinder.approximate(fit, log_density, _start(latents, start))
        return pathfinder.sample(draw, state, N_DRAWS)[0]

    return lambda seed: (jax.block_until_ready(program(jax.random.key(seed))), {})


@peer("blackjax-multipath", "blackjax")
def blackjax_multipath(problem: Problem) -> Call:
    """BlackJAX's multi-path Pathfinder: 8 paths, 512 draws each, resampled with Pareto-smoothed weights."""
    import jax
    from blackjax.vi import multipathfinder

    algorithm, latents = multipathfinder.as_top_level_api(problem.log_density()), problem.jensen().latents

    @jax.jit
    def program(key):
        start, fit, pick = jax.random.split(key, 3)
        state, _ = algorithm.init(fit, _start(latents, start, (N_PATHS,)), N_DRAWS // N_PATHS)
        return algorithm.sample(pick, state, N_DRAWS)

    return lambda seed: (jax.block_until_ready(program(jax.random.key(seed))), {})


@peer("pymc-advi", "pymc")
def pymc_advi(problem: Problem) -> Call | None:
    """`pymc.fit` as it comes (mean-field ADVI, 10,000 steps), where a PyMC version of the model is at hand."""
    import pymc

    from benchmarks.posteriors.in_pymc import MODELS

    if problem.name not in MODELS:
        return None
    build = MODELS[problem.name]

    def run(seed):
        with build(*problem.args):
            approximation = pymc.fit(SVI_STEPS, progressbar=False, random_seed=seed)
        samples = approximation.sample(N_DRAWS, random_seed=seed).posterior
        return {name: samples[name].values[0] for name in samples.data_vars}, {}

    return run


def measure(name: str, root: str | None, which: str) -> dict[str, Any]:
    """The row of one posterior and peer."""
    problem = load(name, root)
    run = PEERS[which][0](problem)
    if run is None:
        return {"skipped": "no version of this model at hand"}
    began = time.perf_counter()
    run(0)
    first = time.perf_counter() - began
    began = time.perf_counter()
    draws, facts = run(1)
    later = time.perf_counter() - began
    return facts | {"seconds_first": first, "seconds_later": later} | _errors(problem, which, draws)


def beside(name: str, root: str | None, seed: int, which: str) -> dict[str, Any]:
    """The row of one posterior, peer and seed: one call."""
    problem = load(name, root)
    run = PEERS[which][0](problem)
    if run is None:
        return {"skipped": "no version of this model at hand"}
    began = time.perf_counter()
    draws, facts = run(seed)
    return facts | {"seconds_first": time.perf_counter() - began} | _errors(problem, which, draws)


def _errors(problem: Problem, which: str, draws: Any) -> dict[str, Any]:
    errors = problem.errors(unconstrained(problem, draws) if which.startswith(("numpyro", "pymc")) else draws)
    return {
        "mean_error": errors.mean, "mean_at": errors.mean_at, "sd_error": errors.sd, "sd_at": errors.sd_at,
        "solved": errors.solved,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    start = f"{row['posterior']:40s} {row['peer']:20s} "
    if "seconds_first" not in row:
        return start + " ".join(row.get("error", row.get("skipped", "")).split())[:110]
    numbers = f"{row['seconds_first']:8.2f} {row['seconds_later']:8.3f} {row['mean_error']:8.2f} {row['sd_error']:7.2f}"
    return f"{start}{numbers} {'solved' if row['solved'] else '':7s} {row.get('verdict', '')}"


def summary(rows: list[dict[str, Any]], base: str = "numpyro-nuts") -> list[str]:
    """For each peer: solved, median seconds, and the median over posteriors of its seconds relative to `base`."""
    done = {(r["posterior"], r["peer"]): r for r in rows if "seconds_first" in r}
    out = [
        f"{'peer':20s} {'runs':>5s} {'solved':>7s} {'first, s':>9s} {'later, s':>9s}  / {base}: first, later, where solved"
    ]
    for name in dict.fromkeys(p for _, p in done):
        mine = [r for (_, p), r in done.items() if p == name]
        pairs = [(r, done[r["posterior"], base]) for r in mine if (r["posterior"], base) in done]
        ratios = [_median(r[key] / b[key] for r, b in pairs) for key in ("seconds_first", "seconds_later")]
        ratios += [_median(r["seconds_first"] / b["seconds_first"] for r, b in pairs if r["solved"])]
        first, later = (_median(r[key] for r in mine) for key in ("seconds_first", "seconds_later"))
        counts = f"{len(mine):5d} {sum(r['solved'] for r in mine):7d} {first:9.2f} {later:9.3f}"
        out.append(f"{name:20s} {counts}  " + " ".join(f"{ratio:8.3f}" for ratio in ratios))
    return out


def _median(values: Any) -> float:
    values = list(values)
    return statistics.median(values) if values else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors.peers", description=__doc__)
    add_choices(parser)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    options = parser.parse_args()
    peers = [p for p in options.peers if all(importlib.util.find_spec(need) for need in PEERS[p][1])]
    print(*(f"left out, its package is not installed: {p}" for p in options.peers if p not in peers), sep="\n")
    print(f"{'posterior':40s} {'peer':20s} {'first, s':>8s} {'later, s':>8s} {'mean':>8s} {'sd':>7s}")
    rows = []
    for name in chosen(options):
        for which in peers:
            arguments = dict(name=name, root=options.root, which=which)
            found = call("benchmarks.posteriors.peers:measure", arguments, options.timeout)
            label = {"benchmark": "peers", "posterior": name, "kind": load(name, options.root).kind, "peer": which}
            label["cores"] = os.cpu_count()
            rows.append(label | found | surroundings())
            print(line(rows[-1]), flush=True)
            if options.out:
                append(rows[-1:], options.out)
    print("\n" + "\n".join(summary(rows)))


if __name__ == "__main__":
    main()
