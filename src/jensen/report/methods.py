"""Each method and rung in a sentence, for someone who knows none of them."""

from .rungs import NON_CENTRED

METHODS = {
    "auto": "Climbs from cheap methods to costly ones, and stops at the first that passes every check.",
    "gradient": "Fits q by stochastic gradients of the objective, step by step.",
    "flow": "A Gaussian bent by a neural network (a normalising flow), fitted by stochastic gradients.",
    "variational-em": "The bound is raised in q alone, then in the model's parameters alone, in turn.",
    "wake-sleep": "Awake, the model learns to produce the rows from latents that q proposes; asleep, q learns to tell the "
    "latents of rows that the model dreams.",
    "reweighted-wake-sleep": "Wake-sleep with several draws of q a row, weighed by how much the model prefers each; q learns "
    "from them and from dreams.",
    "wake-wake": "Reweighted wake-sleep without dreams: q learns only from its weighed draws for rows of the data.",
    "hoffman": "q follows its bound; the model learns from draws of q that a few steps of Hamiltonian Monte Carlo improved.",
    "vcd": "Variational contrastive divergence: the model learns from draws of q that Hamiltonian Monte Carlo improved, and q "
    "from where they went.",
    "laplace": "A Gaussian at each mode found, as wide as the curvature there says; the best of them is kept.",
    "pathfinder": "The best of the Gaussians that quick climbs to the mode pass on their way.",
    "dadvi": "A Gaussian fitted coordinate by coordinate on fixed draws (deterministic ADVI); where there are not too "
    "many, correlations are added afterwards.",
    "natural-gradient": "A Gaussian with all correlations, fitted by natural gradients on fixed draws.",
    "batch-and-match": "A Gaussian whose slopes are matched to those of the posterior, one batch of draws after another.",
    "score-matching": "A Gaussian whose slopes are matched to those of the posterior at each draw, and averaged.",
    "student-t": "The fitted Gaussian with heavier tails, each direction its own.",
    "mixture": "A Gaussian for each mode that was found, with the mass it holds.",
    "importance": "Draws of a fitted Gaussian, resampled by how much the model prefers each.",
    "conditional-gaussian": "A Gaussian in which mean and width of each parameter may depend on those before it, which "
    "follows hierarchies. Its draws are resampled by how much the model prefers each.",
    "nested-laplace": "The few parameters that set scales are drawn by their own distribution, all others from the Gaussian "
    "that they follow given those.",
    "mixture of draws": "Gaussians fitted to draws that stay where the density is not zero.",
    "slices": "Slice sampling: chains side by side that never leave the region where the density is not zero.",
    "draws within": "A Gaussian with the moments of draws from where the density is not zero: the budget ended before more.",
    "hmc in each mode": "Chains of Hamiltonian Monte Carlo in each mode by itself; how much each mode holds by bridge "
    "sampling, since no chain moves between them.",
    "hmc": "Hamiltonian Monte Carlo: 64 chains side by side, started from the fitted Gaussian, run until they agree.",
    "nuts": "The No-U-Turn sampler: chains side by side, each path as long as it pays, in coordinates learned from draws "
    "and slopes, run until they agree.",
    "mala": "Langevin chains side by side: short steps along the slope, run until they agree.",
    "smc": "Sequential Monte Carlo: particles moved from a wide start to the posterior through ever colder densities.",
}

CORRECTIONS = {
    " + importance": "Its draws are resampled by how much the model prefers each.",
    " + hmc": "Chains of Hamiltonian Monte Carlo go on from there, in coordinates it straightens, until they agree.",
}

OTHER_COORDINATES = {
    NON_CENTRED: "All of it in non-centred coordinates, in which a hierarchy's effects do not depend on its scale.",
    "learned "
    + NON_CENTRED: "All of it in coordinates that were learned from the density's curvature, in which no parameter "
    "sets the scale of another.",
    "walled ": "All of it in coordinates that end where the density does.",
}


def sentence(method: str) -> str:
    """What a method does, by the name that `fit.options["method"]`, the trail or `fit(method=...)` has for it."""
    where = next((prefix for prefix in OTHER_COORDINATES if method.startswith(prefix)), "")
    base, end = method.removeprefix(where), ""
    for suffix, correction in CORRECTIONS.items():
        if base.endswith(suffix):
            base, end = base.removesuffix(suffix), correction
    said = METHODS.get(base, f"A method named {base}.")
    if base == "conditional-gaussian" and end:
        said = said.partition(". ")[0] + "."  # the resampling is not its last step
    return " ".join(s for s in (said, end, OTHER_COORDINATES.get(where, "")) if s)
