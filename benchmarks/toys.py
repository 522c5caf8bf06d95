"""Two-dimensional targets (banana, two modes, an x) fitted by every family that bends: how far its draws are from exact ones.

`python -m benchmarks.toys [--targets ..] [--families ..] [--steps N] [--out rows.jsonl] [--figure docs/images/families.png]`
The toys of VCD: `--targets correlated banana "unequal modes" --families MeanField Hoffman VCD --starts`; those of PVI:
`--targets parabola "four modes" x-shaped --tests 40`.

A row has the sliced Wasserstein distance (200 directions) and the maximum mean discrepancy (a Gaussian kernel, its width the
median distance) of 2,000 draws from as many exact ones, and the noise floor of both: two independent exact samples. The
densities are normalised, so -ELBO is KL(q || p), of an explicit family; of the others an upper bound, with the mixing draws of
the verdict; none for those without a density. Every family takes the same number of Adam steps, 3e-3 falling along a cosine to
0, gradients clipped at norm 10, with 8 draws each (64 where the density of draws is estimated from the draws).
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import multivariate_normal as mvn
from jax.scipy.stats import norm
from scipy.spatial.distance import cdist, pdist

import jensen as jn
from benchmarks.harness import commit, cpu_model
from jensen import families as f
from jensen.diagnostics.distance import mmd as mmd_test
from jensen.families.improved import Improved

N_DRAWS, N_SLICES, FLOORS, TESTED = 2000, 200, 10, 500
RATE, CLIP = 3e-3, 10.0


class Toy(NamedTuple):
    """A normalised log density, exact draws (rng, n) -> (n, 2), and the window of the picture."""

    log_density: Callable
    draw: Callable
    window: tuple[float, float, float, float]


BENT = np.array([[1.0, 0.9], [0.9, 1.0]])
LINES = np.array([[2.0, 1.8], [1.8, 2.0]]), np.array([[2.0, -1.8], [-1.8, 2.0]])

NARROW = np.array([[1.0, 0.95], [0.95, 1.0]])
CORNERS, SHARES = np.array([[2.0, 2], [-2, -2], [2, -2], [-2, 2]]), np.array([1, 1, 4, 2]) / 8
UNEQUAL = np.array([[1.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.6], [-0.6, 1.0]])


def _two(means, covariances, share=0.5):
    """A mixture of two normals; share: of the first."""

    def log_density(z):
        each = [mvn.logpdf(z, jnp.asarray(m), jnp.asarray(c)) for m, c in zip(means, covariances, strict=True)]
        return jnp.logaddexp(each[0] + np.log(share), each[1] + np.log1p(-share))

    def draw(rng, n):
        which = rng.random(n) >= share
        both = [rng.multivariate_normal(m, c, n) for m, c in zip(means, covariances, strict=True)]
        return np.where(which[:, None] == 0, *both)

    return log_density, draw


def _four(z):
    each = jnp.stack([mvn.logpdf(z, jnp.asarray(m), jnp.eye(2)) for m in CORNERS])
    return jax.nn.logsumexp(each + np.log(SHARES))


def _four_draw(rng, n):
    return CORNERS[rng.choice(4, n, p=SHARES)] + rng.normal(size=(n, 2))


def _parabola(z):
    return norm.logpdf(z[0], 0, 2) + norm.logpdf(z[1], z[0] ** 2 / 4, 1)


def _parabola_draw(rng, n):
    first = 2 * rng.normal(size=n)
    return np.stack([first, first**2 / 4 + rng.normal(size=n)], 1)


def _banana(z):
    """(z_1, z_2 + z_1^2 + 1) is normal; the map has slope 1."""
    return mvn.logpdf(jnp.stack([z[0], z[1] + z[0] ** 2 + 1]), jnp.zeros(2), jnp.asarray(BENT))


def _banana_draw(rng, n):
    u = rng.multivariate_normal(np.zeros(2), BENT, n)
    return np.stack([u[:, 0], u[:, 1] - u[:, 0] ** 2 - 1], 1)


TARGETS = {
    "banana": Toy(_banana, _banana_draw, (-3.5, 3.5, -10, 2)),
    "multimodal": Toy(*_two(([-2.0, 0.0], [2.0, 0.0]), (np.eye(2), np.eye(2))), (-5, 5, -4, 4)),
    "x-shaped": Toy(*_two((np.zeros(2), np.zeros(2)), LINES), (-4.5, 4.5, -4.5, 4.5)),
    "parabola": Toy(_parabola, _parabola_draw, (-6.5, 6.5, -4, 11)),
    "four modes": Toy(_four, _four_draw, (-5.5, 5.5, -5.5, 5.5)),
    "correlated": Toy(*_two((np.zeros(2),) * 2, (NARROW,) * 2), (-4, 4, -4, 4)),
    "unequal modes": Toy(*_two(([0.8, 0.8], [-2.0, -2.0]), UNEQUAL, 0.3), (-5, 4, -5, 4)),
}
UIVI_TOYS = "banana", "multimodal", "x-shaped"

# name -> options of `jn.fit`: UIVI's own sizes for the semi-implicit ones (noise of 3 dimensions, 50-50 units, L = 50)
FAMILIES: dict[str, dict[str, Any]] = {
    "MeanField": {"family": f.MeanField(scale=1.0)},
    "FullRank": {"family": f.FullRank(scale=1.0)},
    "Mixture(10)": {"family": f.Mixture(n=10, component=f.FullRank(scale=1.0))},
    "RealNVP": {"family": f.RealNVP(scale=1.0)},
    "Spline": {"family": f.Spline(scale=1.0)},
    "IAF": {"family": f.InverseAutoregressive(scale=1.0)},
    "SIVI": {"family": f.SemiImplicit(n_noise=3)},
    "UIVI": {"family": f.SemiImplicit(n_noise=3), "gradient": jn.gradients.UIVI()},
    "UIVI (importance)": {
        "family": f.SemiImplicit(n_noise=3),
        "gradient": jn.gradients.UIVI("importance"),
    },
    "PVI": {"family": f.Particles(100, n_noise=3), "plan": jn.plans.Stratified()},
    "Hierarchical": {"family": f.Hierarchical(n_auxiliary=3)},
    "Hierarchical(RealNVP)": {"family": f.Hierarchical(f.RealNVP((3,), scale=1.0))},
    "VariationalGP": {"family": f.VariationalGP(20, n_noise=3)},
    "FFJORD": {"family": f.ContinuousFlow(scale=1.0, n_steps=8)},
    "Implicit, spectral": {"family": f.Implicit(), "gradient": jn.gradients.SpectralStein(), "n_samples": 64},
    "Implicit, adversarial": {"family": f.Implicit(), "gradient": jn.gradients.Adversarial(), "n_samples": 64},
    "Hoffman": {"family": f.MeanField(scale=1.0), "method": jn.methods.Hoffman(n_steps=3)},
    "VCD": {"family": f.MeanField(scale=1.0), "method": jn.methods.VCD(n_steps=3)},
}


def sliced_wasserstein(a, b, n_slices=N_SLICES, seed=0):
    """Root of the mean squared 2-Wasserstein distance of projections of two samples of one size."""
    angle = np.random.default_rng(seed).uniform(0, np.pi, n_slices)
    lines = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.sqrt(((np.sort(a @ lines, 0) - np.sort(b @ lines, 0)) ** 2).mean()))


def mmd(a, b, width):
    """Root of the unbiased squared maximum mean discrepancy (0 where that is negative)."""
    kernel = lambda x, y: np.exp(-0.5 * (cdist(x, y) / width) ** 2)
    n = len(a)
    within = lambda x: (kernel(x, x).sum() - n) / (n * (n - 1))
    return float(np.sqrt(max(0.0, within(a) + within(b) - 2 * kernel(a, b).mean())))


def distances(a, b, width):
    return {"sliced_wasserstein": sliced_wasserstein(a, b), "mmd": mmd(a, b, width)}


def floor_of(toy, width):
    """Mean distances of two independent exact samples."""
    rng = np.random.default_rng(1)
    found = [distances(toy.draw(rng, N_DRAWS), toy.draw(rng, N_DRAWS), width) for _ in range(FLOORS)]
    return {f"{k}_floor": float(np.mean([d[k] for d in found])) for k in found[0]}


def rejected(fit, toy, n):
    """Share of n pairs of fresh samples, 500 draws of q and 500 exact ones, that an MMD test of level 5 % tells apart."""
    rng = np.random.default_rng(2)
    q = np.asarray(fit.sample(n * TESTED, seed=2)).reshape(n, TESTED, 2)
    return float(np.mean([mmd_test(z, toy.draw(rng, TESTED)).p_value <= 0.05 for z in q]))


def measured(target, name, n_steps, seed=0, n_tests=0):
    """(row, draws, draws of q0 before the chain or None) of one fit."""
    toy, began = TARGETS[target], time.perf_counter()
    exact = toy.draw(np.random.default_rng(0), N_DRAWS)
    width = float(np.median(pdist(exact[:500])))
    adam = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(optax.cosine_decay_schedule(RATE, n_steps)))
    options = {"n_samples": 8, "n_steps": n_steps, "optimizer": adam, "progress": False} | FAMILIES[name]
    fit = jn.fit(jn.models.LogDensity(toy.log_density, (2,)), seed=seed, **options)
    draws = np.asarray(fit.sample(N_DRAWS, seed=1))
    before = None
    if isinstance(fit.family, Improved):
        keys = jax.random.split(jax.random.key(1), N_DRAWS)
        before = np.asarray(jax.vmap(fit.family.start(None).sample)(keys))
    row = {"target": target, "family": name, "gradient": fit.options.get("gradient"), "steps": n_steps, "seed": seed,
           "kl": -float(fit.elbo), "verdict": str(fit.verdict), "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip
    row |= {"mmd_rejected": rejected(fit, toy, n_tests), "mmd_tests": n_tests} if n_tests else {}
    row |= distances(draws, exact, width) | floor_of(toy, width)
    return row | {"cores": os.cpu_count(), "processor": cpu_model(), "commit": commit()}, draws, before


def gallery(drawn, path):
    """One row a target: its contours, and the draws of each family over them."""
    from jensen.report.style import FAINT, Q, new_figure, styled, to_png

    targets, names = list(dict.fromkeys(t for t, _ in drawn)), list(dict.fromkeys(n for _, n in drawn))
    with styled():
        figure = new_figure(1.75 * len(names), 1.85 * len(targets))
        axes = figure.subplots(len(targets), len(names), squeeze=False)
        for row, target in zip(axes, targets, strict=True):
            toy = TARGETS[target]
            x0, x1, y0, y1 = toy.window
            x, y = np.linspace(x0, x1, 120), np.linspace(y0, y1, 120)
            grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
            density = np.exp(np.asarray(jax.jit(jax.vmap(toy.log_density))(jnp.asarray(grid)))).reshape(120, 120)
            for ax, name in zip(row, names, strict=True):
                if (target, name) in drawn:
                    z = drawn[target, name]
                    ax.scatter(z[:, 0], z[:, 1], s=1.0, color=Q, alpha=0.35, linewidths=0, rasterized=True)
                ax.contour(
                    x, y, density, levels=density.max() * np.array([0.02, 0.15, 0.5]), colors=FAINT, linewidths=0.7
                )
                ax.set(xlim=(x0, x1), ylim=(y0, y1), xticks=[], yticks=[])
                ax.spines[["left", "bottom"]].set_visible(False)
                if target == targets[0]:
                    ax.set_title(name, fontsize=8, loc="center")
            row[0].set_ylabel(target)
    pathlib.Path(path).write_bytes(to_png(figure, 110))


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toys", description=__doc__)
    parser.add_argument("--targets", nargs="*", default=UIVI_TOYS, choices=list(TARGETS))
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--starts", action="store_true", help="draw q0 before the chain beside a q that MCMC improved")
    parser.add_argument("--tests", type=int, default=0, help="MMD tests on fresh samples; 0: none")
    parser.add_argument("--out")
    parser.add_argument("--figure")
    options = parser.parse_args()
    drawn = {}
    for target in options.targets:
        for name in options.families:
            row, drawn[target, name], before = measured(target, name, options.steps, n_tests=options.tests)
            if before is not None and options.starts:
                drawn[target, f"{name}, q0"] = before
            print(f"{target:11s} {name:22s} KL {row['kl']:6.3f}  SW {row['sliced_wasserstein']:.3f} "
                  f"({row['sliced_wasserstein_floor']:.3f})  MMD {row['mmd']:.3f} ({row['mmd_floor']:.3f})  "
                  f"rejected {row.get('mmd_rejected', '-')}  {row['verdict']:10s} {row['seconds']:.0f} s",
                  flush=True)  # fmt: skip
            if options.out:
                with open(options.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
        if options.figure:
            gallery(drawn, options.figure)


if __name__ == "__main__":
    main()
