"""Makes the stored references: a long run of NumPyro's NUTS in float64, kept as moments only.

`python -m benchmarks.posteriors.reference [--root DIR] NAME ...` (default: all that are missing). Four chains; after
warmup, draws are added until every unconstrained coordinate, and its square, has an effective sample size of 4,000, or
the time is up. Where it mixes better, NUTS runs on an equivalent model and its draws are converted.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks.posteriors.moments import REFERENCES, Moments, chain_quality, coordinate_names, flat, located
from benchmarks.posteriors.registry import ENTRIES, Problem, checksums, load

DEFAULTS = {"n_warmup": 2000, "n_chunk": 2500, "target_accept": 0.9, "dense_mass": False, "chain_method": "vectorized"}
N_CHAINS, WANTED_ESS, RHAT_LIMIT = 4, 4000, 1.01


def sample(problem: Problem, seconds: float) -> Moments:
    """The reference of one posterior; call it where float64 is in force."""
    entry, model = problem.entry, problem.jensen()
    settings = DEFAULTS | entry.settings
    began = time.perf_counter()
    mcmc = nuts(entry.sampler or entry.model, settings)
    key, chunks, divergences = jax.random.key(1), [], 0
    unconstrain = jax.jit(jax.vmap(lambda x: model.unconstrain(x)[0]))
    while True:
        mcmc.run(key, *problem.args, extra_fields=("diverging",))
        draws = {site: np.asarray(value) for site, value in mcmc.get_samples(group_by_chain=True).items()}
        divergences += int(mcmc.get_extra_fields()["diverging"].sum())
        draws = entry.convert(draws) if entry.convert else draws
        draws = {site: draws[site].reshape(-1, *draws[site].shape[2:]) for site in model.latents}
        chunks.append(flat(jax.device_get(unconstrain(draws))).reshape(N_CHAINS, settings["n_chunk"], -1))
        chains = np.concatenate(chunks, axis=1)
        rhat, ess = chain_quality(chains)
        elapsed = time.perf_counter() - began
        print(
            f"  {chains.shape[1]} draws a chain, R-hat {rhat.max():.4f}, ESS {ess.min():.0f}, {elapsed:.0f} s",
            flush=True,
        )
        if (ess.min() >= WANTED_ESS and rhat.max() < RHAT_LIMIT) or elapsed * (1 + 1 / len(chunks)) > seconds:
            break
        mcmc.post_warmup_state = mcmc.last_state
        key = mcmc.last_state.rng_key
    made = {
        "sampler": "numpyro NUTS, float64", "settings": settings, "n_chains": N_CHAINS, "n_draws": chains.shape[1],
        "divergences": divergences, "seconds": round(elapsed, 1), "data": checksums(problem.args),
        "sampled_as": _called(entry.sampler or entry.model),
    }  # fmt: skip
    x = chains.reshape(-1, chains.shape[-1])
    return Moments(coordinate_names(model.latents), *located(x), "moments", rhat, ess, made, *located(x, "quantiles"))


def _called(model: Callable) -> str:
    """The function's name, and what it was given."""
    if not isinstance(model, partial):
        return model.__name__
    return f"{_called(model.func)}({', '.join(f'{k}={v!r}' for k, v in model.keywords.items())})"


def nuts(model, settings: dict):
    """NumPyro's sampler for one chunk of draws."""
    from numpyro.infer import MCMC, NUTS
    from numpyro.infer.initialization import init_to_median

    accept, dense = settings["target_accept"], settings["dense_mass"]
    kernel = NUTS(model, target_accept_prob=accept, dense_mass=dense, init_strategy=init_to_median(num_samples=15))
    return MCMC(
        kernel, num_warmup=settings["n_warmup"], num_samples=settings["n_chunk"], num_chains=N_CHAINS,
        chain_method=settings["chain_method"], progress_bar=False,
    )  # fmt: skip


def stored() -> list[str]:
    """The posteriors whose reference is a stored one."""
    return [name for name, entry in ENTRIES.items() if not entry.exact]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors.reference", description=__doc__)
    parser.add_argument("name", nargs="*", help="posteriors; default: those without a reference")
    parser.add_argument("--root", type=Path, default=os.environ.get("JENSEN_DATA"), help="the folder of data sets")
    parser.add_argument("--seconds", type=float, default=600.0, help="most seconds of sampling for each")
    parser.add_argument("--show", action="store_true", help="only print the table of stored references")
    options = parser.parse_args()
    from threadpoolctl import threadpool_limits

    if not options.show:
        missing = [n for n in stored() if not (REFERENCES / f"{n}.json").is_file()]
        for name in options.name or missing:
            print(name, flush=True)
            with (
                jax.enable_x64(True),
                threadpool_limits(1),
            ):  # a second BLAS thread slows small triangular solves 50 times
                sample(load(name, options.root), options.seconds).save(REFERENCES / f"{name}.json")
    print(f"{'posterior':32s} {'dim':>4s} {'R-hat':>7s} {'ESS':>7s} {'draws':>7s} {'diverged':>8s} {'seconds':>8s}")
    for name in stored():
        if (path := REFERENCES / f"{name}.json").is_file():
            m = Moments.read(path)
            print(f"{name:32s} {len(m.names):4d} {m.rhat.max():7.4f} {m.ess.min():7.0f} "
                  f"{N_CHAINS * m.made['n_draws']:7d} {m.made['divergences']:8d} {m.made['seconds']:8.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
