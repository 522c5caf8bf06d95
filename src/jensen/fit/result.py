"""The result of a fit: a posterior, its verdict, and what users do with them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ..arrays import given, in_double, lifted
from ..compiled import key_for
from ..diagnostics.marginals import Marginals
from ..diagnostics.verdict import Diagnosis
from ..errors import ModelError, check_seed, explain
from ..families.base import AbstractFamily
from ..function import Static
from ..models.base import AbstractModel
from ..models.coordinates import constrainer
from ..process import computes
from . import drawing
from .attempt import Attempt
from .base import AbstractResult

if TYPE_CHECKING:
    import pandas as pd


def _own_precision(method: Callable) -> Callable:
    """The method, run in the precision the fit was made in."""

    @functools.wraps(method)
    def run(self: "Fit", *args: Any, **kwargs: Any) -> Any:
        with self.precision():
            return method(self, *args, **kwargs)

    return run


@computes
@dataclasses.dataclass
class Fit(AbstractResult):
    """A fitted q, and a verdict on it.

    family:     the fitted q.   model: the model with its trained parameters (None in a fit loaded without it).
    diagnosis:  what was measured.   history: the objective at every step, nats.   why: how the optimisation ended:
                "converged" | "budget" | "stalled" | "diverged" | "interrupted" | "patience".   trail: all that was tried.
    draws, log_p, log_q: the draws the verdict was made from, unconstrained, leading axis n (n, rows for plated models).
    corrected:  how the draws came from q: "none": drawn from it; "importance": resampled by weights; "chains": by MCMC.
                Then `family` is these draws, `proposal` the density below them (on flat vectors), and log_q that of
                the proposal with its heavy tails, of which `proposals` holds (log p, log q) of fresh draws.
    double:     made in float64 (data, draws and q are of it), else in float32; its methods compute in the same, whatever
                the global setting.
    """

    family: AbstractFamily
    model: AbstractModel | None
    rows: Any
    diagnosis: Diagnosis
    history: np.ndarray
    why: str
    seconds: float
    step_size: float | None
    seed: int
    draws: PyTree
    log_p: np.ndarray
    log_q: np.ndarray
    options: dict[str, Any]
    n_skipped: int = 0
    trail: list[Attempt] = dataclasses.field(default_factory=list)
    coordinates: Any = None  # of a loaded fit: constrains without the model
    corrected: str = "none"
    proposal: Any = None
    double: bool = dataclasses.field(default_factory=in_double)
    proposals: tuple[np.ndarray, np.ndarray] | None = None
    marginals: Marginals | None = None  # of what is reported; None: by `draws`, where it is asked for
    refit: Callable[..., "Fit"] | None = None  # fits another model with the same options
    onward: Callable[..., "Fit"] | None = None  # goes on with this one

    def precision(self) -> Any:
        """Context in which the fit's arrays keep their digits."""
        return jax.enable_x64(self.double)

    # ---- the verdict ------------------------------------------------------------------------------------------
    @property
    def khat(self) -> float:
        """Pareto k-hat of the importance weights log p - log q (95th percentile over rows for a latent per row)."""
        return self.diagnosis.khat

    @property
    def elbo(self) -> float:
        """Evidence lower bound at the end, nats, whole data, larger is better."""
        return self.diagnosis.elbo

    @property
    def log_evidence(self) -> float:
        """Importance-sampled estimate of log p(x), nats, whole data."""
        return self.diagnosis.log_evidence

    @property
    def plated(self) -> bool:
        """Has every row its own latent?"""
        return self.options.get("plated", False) if self.model is None else self.model.plated

    @property
    def weighable(self) -> bool:
        """Has q a density, so that its draws can be weighed by importance?"""
        return self.corrected != "none" or not np.isnan(self.log_q).all()

    def _weighed(self, asked: str) -> None:
        if not self.weighable:
            wrong, because = "q has no density that can be evaluated", "it is made of the weights p / q of q's draws"
            instead = "a family with a density (MeanField, FullRank, RealNVP), or fit.against(draws)"
            raise ModelError(explain(asked, wrong, because, instead))

    def numbers(self) -> dict[str, Any]:
        """What it is known by, for a program: the diagnosis, the method and what it cost, the trail, the summary."""
        d = self.diagnosis
        table = {str(name): row for name, row in self.summary().to_dict("index").items()}
        return {
            "khat": d.khat, "ess": d.ess, "elbo": d.elbo, "elbo_se": d.elbo_se, "log_evidence": d.log_evidence,
            "log_evidence_se": d.log_evidence_se, "method": self.options.get("method", "gradient"),
            "corrected": self.corrected, "budget": self.options.get("budget"),
            "evaluations": self.options.get("evaluations"), "n_steps": len(self.history), "why": self.why,
            "seconds": self.seconds, "step_size": self.step_size, "seed": self.seed, "options": self.options,
            "trail": [vars(a) for a in self.trail], "summary": table,
        }  # fmt: skip

    def __repr__(self) -> str:
        method = self.options.get("method")
        lines = [f"Fit({self.options['model']}, {method or self.options['family']}): {self.verdict}"]
        work = f"{self.options['evaluations']:,} evaluations" if method else f"{len(self.history):,} steps"
        lines += [f"  {bound_in_words(self.diagnosis)}   {work}, {self.seconds:.2f} s   {self.why}"]
        return "\n".join(lines + [f"  - {r}" for r in self.reasons])

    # ---- draws ------------------------------------------------------------------------------------------------
    def _q(self, data: Any = None) -> Any:
        from .rows import as_rows

        rows = self.rows if data is None else lifted(as_rows(data))
        if rows is None and (self.plated or self.options.get("local")):
            raise ModelError(
                explain(
                    "draws of latents that belong to rows of data",
                    "this fit was loaded without its data",
                    "q(z | x) is a distribution for each row x",
                    "sample(n, data=X)",
                )
            )
        if self.plated:
            self.family.check_rows(rows)
        return rows, self.plated

    @_own_precision
    def sample(self, n: int = 1000, seed: int = 0, *, data: Any = None) -> PyTree:
        """Posterior draws in the model's own (constrained) coordinates, numpy, leading axis n.

        Of a corrected fit: its draws in random order (`fit.draws` holds some 4,000; more than that repeat).

        With a latent for each row: of the rows in `data` (default: the fitted ones), shape (n, rows, ...).
        """
        rows, plated = self._q(data)
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ModelError(
                explain(f"sample(n={n!r})", "n is not a positive whole number", "it counts draws", "sample(1000)")
            )
        if self.corrected != "none":
            return drawing.constrained(self._constrainer(), self._pick(int(n), seed))
        arrays, static = eqx.partition((self.family, self._constrainer()), eqx.is_array)
        key = jr.key_data(key_for(seed, "sample"))
        return jax.device_get(drawing.draw(Static(static), arrays, key, int(n), rows, plated))

    def _pick(self, n: int, seed: int) -> PyTree:
        """n of the corrected draws in random order, none twice before all were taken."""
        rng, total = np.random.default_rng([check_seed(seed), 17]), len(self.log_p)
        index = np.concatenate([rng.permutation(total) for _ in range(-(-n // total))])[:n]
        return jax.tree.map(lambda a: np.asarray(a)[index], self.draws)

    def _constrainer(self) -> Any:
        return self.coordinates if self.model is None else constrainer(self.model)

    @_own_precision
    def log_prob(self, z: PyTree, *, data: Any = None) -> np.ndarray:
        """log q of values as `sample` gives them (constrained coordinates, change of variables included), shape (n,).

        With a latent for each row: shape (n, rows).
        """
        rows, plated = self._q(data)
        own = self._constrainer()
        arrays, static = eqx.partition((self.family, own), eqx.is_array)
        return jax.device_get(drawing.log_prob(Static(static), arrays, lifted(given("z", z)), rows, plated))

    @_own_precision
    def predict(self, n: int = 100, seed: int = 0, *, data: Any = None, **new: Any) -> Any:
        """Posterior predictive draws.

        NumPyro models: dict of observed sites, leading axis n. New data are given by the names of the model function's
        arguments, `predict(n, X=X_new, y=None)`; the others stay.
        Decoders: n new rows for each row of data, shape (n, rows, ...). Otherwise a ModelError: a log density alone
        cannot be sampled.
        """
        if self.model is None or not hasattr(self.model, "predict" if not self.plated else "likelihood"):
            wrong = (
                "this fit was loaded without its model"
                if self.model is None
                else f"a {type(self.model).__name__} cannot generate data"
            )
            raise ModelError(
                explain("`predict`", wrong, "predictions are draws from p(x | z)", "a NumPyro model or a decoder")
            )
        model: Any = self.model
        keys = jr.split(key_for(seed, "predict"), n)
        if self.plated:
            z = self.sample(n, seed, data=data)
            one = lambda key, z: model.likelihood.sample(key, model.decoder(z))
            rows = jax.tree.leaves(z)[0].shape[1]
            return jax.device_get(jax.jit(jax.vmap(jax.vmap(one)))(jax.vmap(lambda k: jr.split(k, rows))(keys), z))
        if new and hasattr(model, "structure"):
            from ..models.adapters.numpyro_simulate import arguments

            new = lifted(dict(zip(("args", "kwargs"), arguments(model, new), strict=True)), "predict")
        z = self.unconstrained(n, seed)
        arrays, static = eqx.partition((model, new), eqx.is_array)
        return jax.device_get(drawing.predict(Static(static), arrays, keys, z))

    @_own_precision
    def unconstrained(self, n: int = 1000, seed: int = 0, *, data: Any = None) -> PyTree:
        """Draws in the coordinates q lives in."""
        rows, plated = self._q(data)
        if self.corrected != "none":
            return self._pick(int(n), seed)
        arrays, static = eqx.partition((self.family, None), eqx.is_array)
        key = jr.key_data(key_for(seed, "sample"))
        return jax.device_get(drawing.draw(Static(static), arrays, key, int(n), rows, plated))

    # ---- tables -----------------------------------------------------------------------------------------------
    @functools.cached_property
    @_own_precision
    def _posterior(self) -> PyTree:
        """The verdict's draws, constrained."""
        return drawing.constrained(self._constrainer(), self.draws, 2 if self.plated else 1)

    def summary(self, prob: float = 0.9) -> "pd.DataFrame":
        """Mean, sd, central interval and Monte Carlo errors of each coordinate, in the model's coordinates.

        A row a coordinate; columns:
        mean, sd:     by all there is: weighted draws, whole chains. NaN where that does not settle them.
        5%, 50%, 95%: median and ends of the interval, named by their percentage, of the draws that `sample` gives.
        mcse_mean, mcse_sd: Monte Carlo standard errors of mean and sd; mcse is mcse_mean.
        ess:          effective number of draws, by ranks: what the quantiles rest on.
        r_hat:        where chains made the draws: rank-normalised split R-hat.
        undetermined: "", "sd", or "mean, sd": a tail holds more of it than the draws settle, or it does not exist.
        """
        from .summary import summary

        return summary(self, prob)

    @_own_precision
    def to_arviz(
        self,
        n: int | None = None,
        *,
        coords: dict[str, Sequence] | None = None,
        dims: dict[str, list[str]] | None = None,
    ):
        """ArviZ `InferenceData`: posterior, log p and log q of each draw (group `sample_stats`), observed data, pointwise
        log-likelihood where the model has it."""
        from ..report.arviz import to_inference_data

        return to_inference_data(self, n, coords=coords, dims=dims)

    # ---- what follows from the posterior ----------------------------------------------------------------------
    def proposal_draws(self) -> tuple[np.ndarray, np.ndarray]:
        """(log p, log q) of draws of q: importance weights for the evidence."""
        return (self.log_p, self.log_q) if self.proposals is None else self.proposals

    def _effective(self) -> float | None:
        """Effective number of the draws of chains, from the standard error between chains; None for others."""
        error = self.diagnosis.details.get("chains", {}).get("se_mean")
        return None if not error else float(min(len(self.log_p), error**-2))

    @_own_precision
    def loo(self) -> Any:
        """PSIS leave-one-out cross-validation: expected log predictive density, its error, k-hat of each observation.

        Corrected for q not being the posterior where the draws are q's.  Reference: Vehtari, Gelman and Gabry (2017);
        Magnusson et al. (2019).
        """
        from ..diagnostics.loo import loo

        self._weighed("`loo`")
        effective = self._effective()
        return loo(self, reff=1.0 if effective is None else effective / len(self.log_p))

    @_own_precision
    def evidence(self, prob: float = 0.9) -> Any:
        """log p(data) with an interval: importance sampling, or for chains the bridge between q and the posterior."""
        from ..diagnostics.evidence import evidence

        self._weighed("`evidence`")
        return evidence(self, prob, ess=self._effective())

    @_own_precision
    def against(self, draws: PyTree, seed: int = 0) -> Any:
        """Compares the verdict's draws with draws known to be right, as `sample` gives them: moments, maximum mean
        discrepancy, sliced Wasserstein distance. The only way for a q without a density to be called RELIABLE.
        """
        from ..diagnostics.distance import against

        return against(self, given("draws", draws, finite=False), seed)

    @_own_precision
    def log_likelihood(
        self, rows: Any = None, method: str = "importance", n_samples: int = 1000, seed: int = 0, **options: Any
    ) -> Any:
        """log p(x) of rows with a latent each, from below: "importance" (draws of q), "hmc" (a Gaussian that chains from q
        found) or "ais" (annealed from q or the prior). Values, standard errors and effective sample sizes of each row;
        see `jensen.diagnostics.likelihood`.
        """
        from ..diagnostics.likelihood import log_likelihood

        return log_likelihood(self, rows, method, n_samples, seed, **options)

    @_own_precision
    def bracket(self, n_rows: int = 100, n_samples: int = 16, seed: int = 0, **options: Any) -> Any:
        """log p(x) of rows drawn from the model, from below and from above, by bidirectional annealing: how far
        `log_likelihood(method="ais")` can be trusted. See `jensen.diagnostics.annealing`."""
        from ..diagnostics.annealing import bracket

        return bracket(self, n_rows, n_samples, seed, **options)

    @_own_precision
    def linear_response(self, n_draws: int = 1024, seed: int = 0, *, unconstrained: bool = False) -> Any:
        """Covariances that a mean-field q does not have, by linear response (LRVB): exact for Gaussian posteriors.

        Reference:  Giordano, Broderick and Jordan (2018).
        """
        from ..diagnostics.linear_response import linear_response

        return linear_response(self, n_draws, seed, unconstrained=unconstrained)

    @_own_precision
    def calibrate(self, n_simulations: int = 100, seed: int = 0, **options: Any) -> Any:
        """Simulation-based calibration of this method on this model: parameters from the prior, data from them, the
        same fit, and the ranks. Options as for `jensen.diagnostics.calibration.calibrate`.

        Cost:   n_simulations fits.   Reference:  Talts et al. (2018); Yao et al. (2018), VSBC.
        """
        from ..diagnostics.calibration import calibrate

        return calibrate(self, n_simulations, seed, **options)

    # ---- pictures and files -----------------------------------------------------------------------------------
    @_own_precision
    def plot(self, kind: str = "overview"):
        """A Matplotlib figure: "overview", "ladder" (of gradients: "trace"), "weights", "marginals", "pairs" or
        "predictive"; with a latent for each row also "samples", "latent" or "usage"."""
        from ..report.plots import plot

        return plot(self, kind)

    @_own_precision
    def report(self, path: str | Path = "report.html") -> Path:
        """One self-contained HTML file: verdict, ELBO curve, k-hat and ESS, marginals, pairs, predictive check."""
        from ..report.html import write_report

        return write_report(self, Path(path))

    @_own_precision
    def save(self, folder: str | Path) -> Path:
        """Writes the fit to a folder, without pickle; `jensen.load` reads it."""
        from .persist import save

        return save(self, Path(folder))


def bound_in_words(d: Diagnosis) -> str:
    """The two numbers that a fit is known by; a q without a density has neither."""
    if np.isnan(d.elbo) and np.isnan(d.khat):
        return "elbo and k-hat not available"
    return f"elbo {'not determined' if np.isnan(d.elbo) else format(d.elbo, ',.2f')}   k-hat {d.khat:.2f}"
