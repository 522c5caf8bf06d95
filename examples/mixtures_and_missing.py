"""Mixtures, probabilistic PCA and factor analysis by EM, on data with holes.

Run it by `python examples/mixtures_and_missing.py [FOLDER]`; pictures go to FOLDER (default: mixtures-out). With the
variable JENSEN_DATA naming a folder of data sets, word counts (20 Newsgroups) and cells (PBMC 3k) are looked at too.
"""

import os
import sys
import time
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import work
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

import jensen as jn
from jensen.zoo import RBM, BernoulliMixture, FactorAnalysis, GaussianMixture, MixtureOfPPCA, ProbabilisticPCA

mpl.use("Agg")
import matplotlib.pyplot as plt

HOLES = 0.3


def heading(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}")


def iris(folder: Path) -> None:
    """Three species, their names unseen; and where the verdict says no."""
    heading("1. Gaussian mixtures: how many components? (iris, 150 x 4)")
    table = load_iris()
    fits = {k: GaussianMixture(k, random_state=0).fit(table.data) for k in range(1, 6)}
    rows = [(k, m.bic(table.data), m.n_iter_, str(m.verdict_), m.reasons_[0]) for k, m in fits.items()]
    print(pd.DataFrame(rows, columns=["K", "BIC", "iterations", "verdict", "because"]).round(1).to_string(index=False))
    found = fits[3].predict(table.data)
    print(f"K = 3 against the species: adjusted Rand index {adjusted_rand_score(table.target, found):.2f}")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for axis, colour, title in zip(axes, (table.target, found), ("species", "components"), strict=True):
        axis.scatter(*table.data[:, 2:].T, c=colour, s=14)
        axis.set(title=title, xlabel="petal length, cm", ylabel="petal width, cm")
    figure.savefig(folder / "iris.png", dpi=120, bbox_inches="tight")


def imputation(folder: Path) -> pd.DataFrame:
    """Root mean squared error of what was taken out, in standard deviations of the column."""
    heading(f"2. Missing values ({HOLES:.0%} of all entries taken out)")
    rng, out = np.random.default_rng(0), []
    for name, load in {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}.items():
        x = load().data[:, :13]  # of the breast cancer table's 30 columns the first
        x = (x - x.mean(0)) / x.std(0)
        gone = rng.random(x.shape) < HOLES
        holes = np.where(gone, np.nan, x)
        d = x.shape[1]
        sides = {
            "mean": SimpleImputer(),
            "IterativeImputer": IterativeImputer(random_state=0),
            "jensen, Gaussian": GaussianMixture(1, max_iter=30),
            "jensen, 3 Gaussians": GaussianMixture(
                3, prior=jn.models.ConjugatePrior(), n_init=2, random_state=0, max_iter=30
            ),
            "jensen, PPCA": ProbabilisticPCA(min(4, d // 2), max_iter=100),
            "jensen, factor analysis": FactorAnalysis(min(4, d // 2), max_iter=100),
        }
        for side, model in sides.items():
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-learn's, that it did not converge
                filled = model.fit(holes).impute(holes) if "jensen" in side else model.fit_transform(holes)
            error = np.sqrt(np.mean((filled - x)[gone] ** 2))
            out.append({"data": name, "model": side, "RMSE": error, "seconds": time.perf_counter() - began})
    frame = pd.DataFrame(out)
    print(frame.pivot(index="model", columns="data", values="RMSE").round(3).to_string())
    print("\nseconds, compilation included")
    print(frame.pivot(index="model", columns="data", values="seconds").round(2).to_string())
    frame.pivot(index="model", columns="data", values="RMSE").plot.barh(
        figsize=(8, 4), xlabel="RMSE, standard deviations"
    )
    plt.savefig(folder / "imputation.png", dpi=120, bbox_inches="tight")
    return frame


def digits(folder: Path) -> None:
    """What the components of digits look like, and digits with their lower half missing."""
    heading("3. Digits (1,797 x 64): a Bernoulli mixture, and a mixture of PPCAs that fills in the lower half")
    table = load_digits()
    bits = (table.data >= 8).astype(float)
    mixture = BernoulliMixture(10, pseudo=0.1, n_init=2, random_state=0).fit(bits)
    print(
        f"Bernoulli mixture: {mixture.score(bits):.2f} nats a digit, {mixture.n_iter_} iterations, {mixture.verdict_}"
    )
    live = table.data[:, table.data.std(0) > 1]
    columns = np.flatnonzero(table.data.std(0) > 1)
    model = MixtureOfPPCA(10, 5, n_init=1, random_state=0, max_iter=30).fit(live[:1500])
    holes = live[1500:1508].copy()
    holes[:, columns >= 32] = np.nan
    filled, seen = np.zeros((8, 64)), np.zeros((8, 64))
    filled[:, columns], seen[:, columns] = model.impute(holes), np.nan_to_num(holes)
    figure, axes = plt.subplots(4, 10, figsize=(10, 4.2))
    for axis, image in zip(axes[0], mixture.means_, strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r")
    for line, block in enumerate((table.data[1500:1508], seen, filled), 1):
        for axis, image in zip(axes[line], block, strict=False):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
    for axis in axes.ravel():
        axis.set_axis_off()
    figure.suptitle("components of the Bernoulli mixture; digits; what was seen; what was filled in")
    figure.savefig(folder / "digits.png", dpi=120, bbox_inches="tight")


def counts(folder: Path, data: Path) -> None:
    """Documents as bits of words, cells as log-counts."""
    heading("4. 20 Newsgroups: a Bernoulli mixture, and an RBM, of documents over 500 common words")
    z = np.load(data / "counts" / "20newsgroups_bow5000.npz")
    made = lambda part: sp.csr_matrix(
        (z[f"{part}_data"], z[f"{part}_indices"], z[f"{part}_indptr"]), z[f"{part}_shape"]
    )
    tables = {part: made(part) > 0 for part in ("train", "test")}
    often = np.asarray(tables["train"].mean(0)).ravel()
    common = np.argsort(-often * (often < 0.25))[:500]  # without what heads nearly every message
    bits, test = (tables[part][:, common].toarray().astype(np.float32) for part in ("train", "test"))
    vocabulary, share = z["vocab"][common], bits.mean(0)
    alone = (test * np.log(share) + (1 - test) * np.log1p(-share)).sum(1).mean()
    mixture = BernoulliMixture(20, pseudo=0.5, n_init=2, random_state=0).fit(bits)
    machine = RBM(100, method="pcd", learning_rate=0.02, n_iter=60, random_state=0).fit(bits)
    print(
        f"nats a document held out: words alone {alone:.2f}, mixture {mixture.score(test):.2f}, RBM {machine.score(test):.2f}"
    )
    print(f"mixture: {mixture.verdict_}; RBM: {machine.verdict_}: {machine.reasons_[0]}")
    labels = z["train_labels"], z["test_labels"]
    for name, model in {"mixture": mixture, "RBM": machine}.items():
        features = model.predict_proba if name == "mixture" else model.transform
        reader = LogisticRegression(max_iter=2000).fit(features(bits), labels[0])
        print(f"newsgroup told from what the {name} sees: {reader.score(features(test), labels[1]):.1%} of documents")
    lift = np.log(mixture.means_) - np.log(share)
    print("\nlargest components of the mixture, and some hidden units of the RBM (the words they raise most)")
    for k in np.argsort(-mixture.weights_)[:8]:
        print(
            f"  {mixture.weights_[k]:.2f}  {', '.join(map(str, vocabulary[np.argsort(-lift[k] * mixture.means_[k])[:8]]))}"
        )
    strongest = np.argsort(-np.sort(machine.components_, 1)[:, -8:].sum(1))[:8]
    for j in strongest:
        print(f"  h{j:<3} {', '.join(map(str, vocabulary[np.argsort(-machine.components_[j])[:8]]))}")
    figure, axis = plt.subplots(figsize=(7, 4.5))
    words = list(dict.fromkeys(np.argsort(-machine.components_[strongest], 1)[:, :4].ravel()))
    top = np.abs(machine.components_).max()
    image = axis.imshow(machine.components_[strongest][:, words], cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
    figure.colorbar(image, label="weight")
    axis.set_xticks(range(len(words)), [str(w) for w in vocabulary[words]], rotation=90, fontsize=7)
    axis.set_yticks(range(len(strongest)), [f"h{j}" for j in strongest], fontsize=7)
    axis.set_title("RBM of documents: weights of hidden units to the words they raise most")
    figure.savefig(folder / "newsgroups.png", dpi=120, bbox_inches="tight")
    heading("5. PBMC 3k: PPCA of the variable genes, then a mixture in its space, against the published cell types")
    z = np.load(data / "counts" / "pbmc3k_counts.npz")
    cells = sp.csr_matrix((z["data"], z["indices"], z["indptr"]), z["shape"]).astype(np.float64)
    size = np.asarray(cells.sum(1)).ravel()
    typed = z["cell_type"] >= 0
    x = np.log1p(cells[:, z["hvg"]].toarray() * (1e4 / size)[:, None])[typed]
    x = x[:, x.std(0) > 0]
    position = ProbabilisticPCA(8).fit(x).transform(x)
    model = GaussianMixture(8, covariance_type="diag", n_init=6, random_state=0).fit(position)
    found = model.predict(position)
    print(
        f"adjusted Rand index {adjusted_rand_score(z['cell_type'][typed], found):.2f}; {model.verdict_}: {model.reasons_[0]}"
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 4))
    for axis, colour, title in zip(axes, (z["cell_type"][typed], found), ("published", "mixture"), strict=True):
        axis.scatter(*position[:, :2].T, c=colour, s=4, cmap="tab10")
        axis.set(title=title, xlabel="latent 1", ylabel="latent 2")
    figure.savefig(folder / "pbmc.png", dpi=120, bbox_inches="tight")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "mixtures-out")
    folder.mkdir(parents=True, exist_ok=True)
    iris(folder)
    imputation(folder)
    digits(folder)
    if os.environ.get("JENSEN_DATA"):
        counts(folder, Path(os.environ["JENSEN_DATA"]))
    heading("Pictures")
    for path in sorted(folder.glob("*.png")):
        print(f"  {path.resolve()}")


if __name__ == "__main__":
    main()
