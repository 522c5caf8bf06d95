"""Each method and rung in a sentence, for someone who knows none of them."""

from ..methods.lookup import sentences
from .rungs import NON_CENTRED

RUNGS = {
    "mixture of draws": "Gaussians fitted to draws that stay where the density is not zero.",
    "slices": "Slice sampling: chains side by side that never leave the region where the density is not zero.",
    "draws within": (
        "A Gaussian with the moments of draws from where the density is not zero: the budget ended before more."
    ),
    "hmc in each mode": (
        "Chains of Hamiltonian Monte Carlo in each mode by itself; how much each mode holds by bridge "
        "sampling, since no chain moves between them."
    ),
    "student-t": "The fitted Gaussian with heavier tails, each direction its own.",
    "nested-laplace": (
        "The few parameters that set scales are drawn by their own distribution, all others from the Gaussian "
        "that they follow given those."
    ),
}
"""What is a rung of the ladder alone, and no method by itself."""

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
    said = RUNGS.get(base) or sentences().get(base, f"A method named {base}.")
    if base == "conditional-gaussian" and end:
        said = said.partition(". ")[0] + "."  # the resampling is not its last step
    return " ".join(s for s in (said, end, OTHER_COORDINATES.get(where, "")) if s)
