"""The toy problem E[(b - t)^2], b ~ Bernoulli(sigmoid(phi)): bias and variance of every estimator, at logits from -6 to 6
and along training. `python -m benchmarks.toy [--out rows.jsonl] [--plot docs/images/toy.png]`.

Every estimator spends (about) four evaluations of the function a step. The bias is compared with the exact derivative
(1 - 2 t) p (1 - p) of the expectation, at a level of 1e-4 over all points; own parameters (temperatures, networks) are
trained at each point first, 10,000 steps of 400 draws.
"""

import argparse
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from scipy.stats import norm

import jensen as jn
from jensen.batch import Batch
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.gradients.plans import IID
from jensen.tree import split_trainable

TARGETS = (0.45, 0.49, 0.499)
LOGITS = np.linspace(-6, 6, 13)
TRAINED, AT_ONCE, REPEATS, LEVEL = 10_000, 400, 20_000, 1e-4
# draws a step: about four evaluations of the function each
DRAWS = {
    "ScoreFunction": 4, "LeaveOneOut": 4, "NVIL": 4, "MuProp": 3, "ARM": 2, "DisARM": 2, "MeasureValued": 2, "REBAR": 1,
    "RELAX": 1, "GumbelSoftmax": 4, "StraightThrough": 4,
}  # fmt: skip
EXPECTATION = jn.objectives.ELBO("entropy")  # samples the function alone; the entropy is added in closed form


def parts_of(name, t, logit):
    q = jn.families.Bernoulli(jnp.array([float(logit)]))
    model = jn.models.LogDensity(lambda b: -((b[0] - t) ** 2), (1,))
    estimator = getattr(jn.gradients, name)().bind(model.latents, None, jr.key(0))
    return Parts(model, q, estimator)


def own_trained(parts, k, seed=0):
    """The estimator with its own parameters and state trained at this very q."""
    carry = parts.estimator.init(Bound.make(parts.model, parts.family, EXPECTATION, Batch(None)))
    diff, rest = split_trainable(parts.estimator)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, TRAINED))

    def step(state, key):
        diff, opt, carry = state
        now = Parts(parts.model, parts.family, eqx.combine(diff, rest))
        one = lambda key: value_and_grad(key, now, EXPECTATION, IID(), Batch(None), carry, n_samples=k)
        e = jax.tree.map(lambda a: a.mean(0), jax.vmap(one)(jr.split(key, AT_ONCE)))
        updates, opt = adam.update(split_trainable(e.grads.estimator)[0], opt)
        return (optax.apply_updates(diff, updates), opt, e.carry), None

    (diff, _, carry), _ = jax.lax.scan(step, (diff, adam.init(diff), carry), jr.split(jr.key(seed), TRAINED))
    return eqx.combine(diff, rest), carry


def measured(name, t):
    """One row for each logit: mean and variance of the estimator of dE[(b - t)^2] / dphi."""
    k = DRAWS[name]
    parts = parts_of(name, t, 0.0)

    @eqx.filter_jit
    def at(logit):
        q = jn.families.Bernoulli(logit[None])
        estimator, carry = own_trained(Parts(parts.model, q, parts.estimator), k)
        now = Parts(parts.model, q, estimator)

        def one(key):
            e = value_and_grad(key, now, EXPECTATION, IID(), Batch(None), carry, n_samples=k)
            p = jax.nn.sigmoid(logit)
            return e.grads.family.logits[0] - logit * p * (1 - p)  # less the entropy's part

        return jax.vmap(one)(jr.split(jr.key(1), REPEATS))

    rows = []
    for logit in LOGITS:
        g = np.asarray(at(jnp.float32(logit)), np.float64)
        p = 1 / (1 + np.exp(-logit))
        exact = (1 - 2 * t) * p * (1 - p)
        se = max(g.std() / REPEATS**0.5, 3e-8)  # what single precision resolves
        rows.append({"estimator": name, "t": t, "logit": float(logit), "draws": k, "mean": g.mean(), "exact": exact,
                     "variance": g.var(), "z": (g.mean() - exact) / se})  # fmt: skip
    return rows


def trained(name, t, n_steps=2000, rate=0.02):
    """The expectation along gradient steps on phi from 0 (smaller is better; the optimum is min(t, 1 - t)^2)."""
    k = DRAWS[name]
    parts = parts_of(name, t, 0.0)
    params, rest = split_trainable(parts)
    adam = optax.adam(rate)

    @eqx.filter_jit
    def run(key):
        carry = parts.estimator.init(Bound.make(parts.model, parts.family, EXPECTATION, Batch(None)))

        def step(state, key):
            params, opt, carry = state
            now = eqx.combine(params, rest)
            e = value_and_grad(key, now, EXPECTATION, IID(), Batch(None), carry, n_samples=k)
            logit = now.family.logits
            p = jax.nn.sigmoid(logit)
            grads = eqx.tree_at(lambda g: g.family.logits, e.grads, e.grads.family.logits - logit * p * (1 - p))
            updates, opt = adam.update(split_trainable(grads)[0], opt)
            return (optax.apply_updates(params, updates), opt, e.carry), (p[0] * (1 - t) ** 2 + (1 - p[0]) * t**2)

        return jax.lax.scan(step, (params, adam.init(params), carry), jr.split(key, n_steps))[1]

    return np.asarray(jax.vmap(run)(jr.split(jr.key(2), 20))).mean(0)


def plot(rows, curves, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["estimator"] for r in rows))
    biased = {n for n in names if not getattr(jn.gradients, n)().unbiased}
    colours = dict(zip(names, plt.get_cmap("tab20").colors, strict=False))
    fig, axes = plt.subplots(2, len(TARGETS), figsize=(14, 8), sharex="row", constrained_layout=True)
    for j, t in enumerate(TARGETS):
        for n in names:
            mine = [r for r in rows if r["estimator"] == n and r["t"] == t]
            style = {"color": colours[n], "ls": "--" if n in biased else "-", "lw": 1.6}
            v = np.maximum([r["variance"] for r in mine], 1e-14)
            axes[0, j].semilogy([r["logit"] for r in mine], v, label=n + (" (biased)" if n in biased else ""), **style)
            axes[1, j].plot(curves[n, t], **style)
        axes[0, j].set(title=f"t = {t}", xlabel="logit", ylabel="variance of the gradient" if j == 0 else "")
        axes[1, j].set(xlabel="step", ylabel="E[(b - t)^2]" if j == 0 else "")
        axes[1, j].axhline(min(t, 1 - t) ** 2, color="0.4", lw=0.8)
        axes[0, j].set_ylim(1e-12, None)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    fig.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toy", description=__doc__)
    parser.add_argument("--estimators", nargs="*", default=list(DRAWS))
    parser.add_argument("--out")
    parser.add_argument("--plot")
    options = parser.parse_args()
    rows = [r for n in options.estimators for t in TARGETS for r in measured(n, t)]
    limit = norm.isf(LEVEL / 2 / len(rows))
    for n in options.estimators:
        mine = [r for r in rows if r["estimator"] == n]
        worst = max(abs(r["z"]) for r in mine)
        said = "none seen" if worst < limit else "biased"
        shown = " ".join(f"{r['variance']:.1e}" for r in mine if r["t"] == 0.499 and abs(r["logit"]) in (0.0, 3.0))
        print(
            f"{n:16s} largest |z| {worst:6.1f} (limit {limit:.1f}): {said:10s} variance at t=.499, logit -3, 0, 3: {shown}"
        )
    if options.out:
        with open(options.out, "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in rows)
    if options.plot:
        curves = {(n, t): trained(n, t) for n in options.estimators for t in TARGETS}
        plot(rows, curves, options.plot)


if __name__ == "__main__":
    main()
