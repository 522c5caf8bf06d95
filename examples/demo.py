"""The main job, on real data that ships with scikit-learn: a posterior with a verdict, and a variational autoencoder.

Run it by `make demo`, or `python examples/demo.py [FOLDER]`; the reports are written to FOLDER (default: demo-out).
"""

import sys
import time
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

import jensen as jn


def logistic_regression(X, y=None):
    """Hierarchical logistic regression: the weights' scale is itself unknown."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    w = numpyro.sample("w", dist.Normal(0.0, tau).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("patients", X.shape[0]):
        numpyro.sample("malignant", dist.Bernoulli(logits=X @ w + intercept), obs=y)


def heading(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}")


def posterior(folder: Path) -> Path:
    heading("1. Hierarchical logistic regression (569 patients, 30 measurements)")
    table = load_breast_cancer()
    X = (table.data - table.data.mean(0)) / table.data.std(0)
    y = 1 - table.target
    began = time.perf_counter()
    fit = jn.fit(jn.from_numpyro(logistic_regression, X, y))
    print(f"{fit}\n\n{time.perf_counter() - began:.1f} s in all, compilation included. Tried:")
    for a in fit.trail:
        print(
            f"  {a.family:<10} {a.verdict:<10} k-hat {a.khat:5.2f}   ELBO {a.elbo:9.2f} nats   {a.seconds:.2f} s   {a.why}"
        )
    summary = fit.summary()
    strongest = summary.loc[[r for r in summary.index if r.startswith("w")]]
    strongest = strongest.reindex(strongest["mean"].abs().sort_values(ascending=False).index)[:5]
    names = {f"w[{i}]": name for i, name in enumerate(table.feature_names)}
    print(f"\n{summary.loc[['intercept', 'tau']].round(3)}\n\nThe five largest weights:")
    print(strongest.rename(index=names).round(3))
    return fit.report(folder / "logistic-regression.html")


def autoencoder(folder: Path) -> Path:
    heading("2. Bernoulli variational autoencoder (1,797 handwritten digits, 8 x 8)")
    X = (load_digits().data >= 8).astype(np.float32)
    train, test = train_test_split(X, test_size=0.2, random_state=0)
    began = time.perf_counter()
    vae = jn.zoo.VAE(latent_dim=10, likelihood="bernoulli", random_state=0).fit(train)
    seconds = time.perf_counter() - began
    print(vae.fit_)
    rate = np.clip(train.mean(0), 1e-3, 1 - 1e-3)
    independent = (test * np.log(rate) + (1 - test) * np.log1p(-rate)).sum(1).mean()
    print(f"\nfit in {seconds:.1f} s. Log-likelihood of 360 held-out digits, nats each (larger is better):")
    print(f"  independent pixels      {independent:8.2f}")
    print(f"  VAE, importance-sampled {vae.score(test):8.2f}")
    return vae.fit_.report(folder / "digits-vae.html")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    reports = [posterior(folder), autoencoder(folder)]
    heading("Reports")
    for path in reports:
        print(f"  {path.resolve()}")


if __name__ == "__main__":
    main()
