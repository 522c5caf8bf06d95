"""A notebook as people use one: data as globals, cells run twice, NUTS and gradients of their own around a fit."""

import pytest

CELLS = [
    """
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist, jensen as jn
from numpyro.infer import MCMC, NUTS
def nuts(model):
    mcmc = MCMC(NUTS(model), num_warmup=50, num_samples=200, progress_bar=False); mcmc.run(jax.random.key(0))
    return float(mcmc.get_samples()["slope"].mean())
slopes = {}
""",
    """
rng = np.random.default_rng(0); x = rng.normal(size=40); y = 2 * x + 0.1 * rng.normal(size=40)
""",
    """
def model():
    slope = numpyro.sample("slope", dist.Normal(0, 10)); s = numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("i", len(x)): numpyro.sample("y", dist.Normal(slope * x, s), obs=y)
""",
    """
slopes.setdefault("nuts", []).append(nuts(model))
fit = jn.fit(model)
slopes.setdefault("fit", []).append(float(fit.summary().loc["slope", "mean"]))
slopes.setdefault("predicted", []).append(float((fit.predict(200)["y"].mean(0) @ x) / (x @ x)))
slopes.setdefault("gradient", []).append(float(-jax.jit(jax.grad(lambda b: ((y - b * x) ** 2).sum()))(0.0) / 2 / (x @ x)))
""",
    "y = -3 * x + 0.1 * rng.normal(size=40)",
]


def test_cells_run_again_with_new_data():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    order = [0, 1, 2, 3, 3, 4, 3, 2, 3]  # twice; new data; the model's cell again
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(CELLS[i]) for i in order]
    book.cells.append(nbformat.v4.new_code_cell("import json; print(json.dumps(slopes))"))
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    import json

    found = json.loads(book.cells[-1].outputs[0]["text"])
    for name, values in found.items():
        assert values == pytest.approx([2.0, 2.0, -3.0, -3.0], abs=0.1), name
