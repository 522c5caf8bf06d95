"""EM against scikit-learn: a Gaussian mixture (60,000 x 50, K 10, full), factor analysis and PCA (60,000 x 784 -> 10).

    python -m benchmarks.em [mixture factor pca] [--rounds 3] [--dtype float32] [--scale 1.0] [--out rows.jsonl]
    python -m benchmarks.em file --gigabytes 10          # a file larger than memory; prints the resident memory

The sides take turns in one process and see the same array. Mixture: seconds an iteration, from the difference of a long
and a short run, so that starts and compilation drop out; and the log-likelihood after the long one, computed in float64.
Factor analysis: seconds to the log-likelihood at which scikit-learn stops. PCA: seconds of the whole fit.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks import harness

SHORT, LONG = 2, 8  # EM iterations of the two runs of the mixture


def timed(fn):
    began = time.perf_counter()
    out = fn()
    return time.perf_counter() - began, out


def clusters(n, d, k, dtype):
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(k, d))
    roots = rng.normal(size=(k, d, d)) / np.sqrt(d) + np.eye(d)
    which = rng.integers(k, size=n)
    x = rng.normal(size=(n, d))
    for j in range(k):
        x[which == j] = x[which == j] @ roots[j].T + means[j]
    return x.astype(dtype)


def factors(n, d, k, dtype):
    rng = np.random.default_rng(1)
    return (
        rng.normal(size=(n, k)) @ rng.normal(size=(k, d)) + rng.normal(size=(n, d)) * rng.uniform(0.5, 2, d)
    ).astype(dtype)


def mixture(options):
    """{side: function of the round -> {metric: (value, unit)}}."""
    from sklearn.mixture import GaussianMixture

    import jensen as jn

    k, x = 10, clusters(int(60_000 * options.scale), 50, 10, options.dtype)
    exact = x.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rough = GaussianMixture(k, max_iter=1, random_state=0, init_params="random_from_data").fit(exact[:5000])
    start = jn.zoo.GaussianMixture.from_sklearn(rough).fit_.params
    double = options.dtype == "float64"
    at_start = {"weights_init": rough.weights_, "means_init": rough.means_, "precisions_init": rough.precisions_}

    def theirs(n_iter):
        fit = GaussianMixture(k, max_iter=n_iter, tol=0.0, reg_covar=0.0,
                              **{name: a.astype(options.dtype) for name, a in at_start.items()})  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fit.fit(x)

    def ours(n_iter):
        return jn.em(jn.models.GaussianMixture(k, ridge=0.0), x, params=start, n_iter=n_iter, tol=0.0, double=double)

    def their_score(fit):
        return reference(fit.weights_, fit.means_, fit.covariances_)

    def our_score(fit):
        inner = fit.params.components
        return reference(fit.params.weights, inner.means, inner.covariances)

    def reference(weights, means, covariances):
        cast = lambda a: np.asarray(a, np.float64)
        other = GaussianMixture(k)
        other.weights_, other.means_, other.covariances_ = cast(weights), cast(means), cast(covariances)
        other.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(other.covariances_)).swapaxes(1, 2)
        return float(other.score(exact))

    def side(fit, score):
        def run():
            short, _ = timed(lambda: fit(SHORT))
            long, found = timed(lambda: fit(LONG))
            each = (long - short) / (LONG - SHORT)
            return {"iteration": (each, "s"), "log-likelihood": (score(found), "nats a row")}

        return run

    ours(SHORT), ours(LONG)
    return {"scikit-learn": side(theirs, their_score), "jensen": side(ours, our_score)}


def factor(options):
    from sklearn.decomposition import FactorAnalysis

    import jensen as jn

    x = factors(int(60_000 * options.scale), 784, 10, options.dtype)
    exact, double = x[:5000].astype(np.float64), options.dtype == "float64"

    def score(mean, components, noise):
        other = FactorAnalysis(10)
        other.mean_, other.components_, other.noise_variance_ = (
            np.asarray(a, np.float64) for a in (mean, components, noise)
        )
        return float(other.score(exact))

    def theirs():
        seconds, fit = timed(lambda: FactorAnalysis(10, random_state=0).fit(x))
        value = score(fit.mean_, fit.components_, fit.noise_variance_)
        return {"fit": (seconds, "s"), "log-likelihood": (value, "nats a row"), "iterations": (fit.n_iter_, "")}

    def ours():
        seconds, fit = timed(lambda: jn.em(jn.models.FactorAnalysis(10), x, double=double))
        value = score(fit.params.mean, fit.params.components, fit.params.noise)
        return {"fit": (seconds, "s"), "log-likelihood": (value, "nats a row"), "iterations": (fit.n_iter, "")}

    ours()
    return {"scikit-learn": theirs, "jensen": ours}


def pca(options):
    from sklearn.decomposition import PCA

    import jensen as jn

    x, double = factors(int(60_000 * options.scale), 784, 10, options.dtype), options.dtype == "float64"
    solver = lambda name: lambda: {"fit": (timed(lambda: PCA(10, svd_solver=name, random_state=0).fit(x))[0], "s")}

    def ours():
        return {"fit": (timed(lambda: jn.em(jn.models.ProbabilisticPCA(10), x, double=double))[0], "s")}

    ours()
    return {"scikit-learn, auto": solver("auto"), "scikit-learn, randomized": solver("randomized"), "jensen": ours}


def resident() -> int:
    """Largest resident memory so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def file(options) -> list[dict]:
    """EM of a mixture on a file: seconds an iteration and the resident memory."""
    import jensen as jn

    d, k = 50, 10
    n = int(options.gigabytes * 1e9 / (4 * d))
    part = clusters(100_000, d, k, "float32")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "rows.npy"
        with open(path, "wb") as out:  # written, not mapped: what is mapped counts as resident
            header = {"descr": "<f4", "fortran_order": False, "shape": (n, d)}
            np.lib.format.write_array_header_1_0(out, header)
            for a in range(0, n, len(part)):
                part[: n - a].tofile(out)
        from jensen.fit.minibatch import MappedArray

        before = resident()
        seconds, fit = timed(
            lambda: jn.em(jn.models.GaussianMixture(k), MappedArray(path), n_starts=1, n_iter=options.iterations)
        )
    metrics = {"pass": (seconds / (fit.n_iter + 1), "s"), "resident": (resident() / 1e9, "GB"),
               "resident before": (before / 1e9, "GB"), "file": (n * d * 4 / 1e9, "GB")}  # fmt: skip
    return rows_of("em, file", {"jensen": [metrics]}, options)


def rows_of(name, measured, options) -> list[dict]:
    import jax

    facts = {"threads": options.threads, "dtype": options.dtype, "scale": options.scale, "load": os.getloadavg()[0]}
    facts |= {"versions": {p: harness.importlib.metadata.version(p) for p in ("jax", "scikit-learn", "numpy")}}
    facts |= {"device": jax.default_backend()} | harness.surroundings()
    rows = []
    for side, rounds in measured.items():
        for metric, (_, unit) in rounds[0].items():
            seen = [r[metric][0] for r in rounds]
            row = {"workload": name, "side": side, "metric": metric, "unit": unit, "median": statistics.median(seen)}
            rows.append(row | {"min": min(seen), "max": max(seen), "n_rounds": len(seen)} | facts)
    return rows


WORKLOADS = {"mixture": mixture, "factor": factor, "pca": pca}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.em", description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="*", default=list(WORKLOADS), help=f"any of {', '.join(WORKLOADS)}, file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the 60,000 rows")
    parser.add_argument("--gigabytes", type=float, default=0.5, help="size of the file of `file`")
    parser.add_argument("--iterations", type=int, default=3, help="EM iterations of `file`")
    parser.add_argument("--folder", help="where the file of `file` is written")
    parser.add_argument("--out", help="file to which the rows are appended, as JSON lines")
    options = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", harness.ONE_THREAD if options.threads == 1 else "")
    from threadpoolctl import threadpool_limits

    harness.pin(options.threads)
    with threadpool_limits(options.threads):
        for name in options.workload:
            if name == "file":
                rows = file(options)
            else:
                sides, measured = WORKLOADS[name](options), {}
                for i in range(options.rounds):
                    order = list(sides)[i % len(sides) :] + list(sides)[: i % len(sides)]
                    for side in order:
                        measured.setdefault(side, []).append(sides[side]())
                rows = rows_of(f"em, {name}", {side: measured[side] for side in sides}, options)
            harness.table(rows, "scikit-learn" if name != "pca" else "scikit-learn, auto")
            if options.out:
                harness.write(rows, options.out)


if __name__ == "__main__":
    main()
