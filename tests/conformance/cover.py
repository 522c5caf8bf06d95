"""All cells, and the few that the default run holds to the reference: a pairwise cover of the axes."""

import heapq
import itertools

import jax

from jensen.cells import compositions

with jax.enable_x64(True):
    ALL = list(compositions())
CELLS = {cell: (made, setting.rows) for cell, made, setting, _ in ALL}
REFUSALS = {cell: why for cell, _, _, why in ALL if why}
VALID = [cell for cell, (made, _) in CELLS.items() if cell not in REFUSALS and made.gradient.unbiased]


ALIKE = {
    "score": ("ScoreFunction", "NVIL"), "relaxed": ("REBAR", "RELAX"), "Taylor": ("TaylorControl",),
    "flow": (
        "RealNVP", "Spline", "InverseAutoregressive", "MaskedAutoregressive", "NICE", "Planar", "Radial", "Sylvester",
        "ContinuousFlow",
    ), "law": ("Univariate", "SinhArcsinh"),
    "semi-implicit": ("SemiImplicit", "Particles"), "hierarchical": ("Hierarchical", "VariationalGP"),
    "reflected": ("ARM", "DisARM"), "Gaussian": ("FullRank", "LowRank", "Householder", "GaussianCopula", "Autoregressive"),
}  # fmt: skip


def _kind(name: str) -> str:
    """Examples that share their code stand for each other in pairs: `ScoreFunction('none')` and `NVIL()`, flows, laws."""
    return next((k for k, heads in ALIKE.items() if name.split("(")[0] in heads), name)


def pairwise(cells: list) -> list:
    """A greedy cover of all pairs of kinds and of all single names; no randomness. Gains only shrink, so a stale one is
    recomputed when it comes up."""
    pairs = {
        c: set(itertools.combinations(enumerate(map(_kind, c)), 2)) | {((i, n),) for i, n in enumerate(c)}
        for c in cells
    }
    missing = set().union(*pairs.values())
    queue = [(-len(p), i) for i, p in enumerate(pairs.values())]
    heapq.heapify(queue)
    out = []
    while missing:
        _, i = heapq.heappop(queue)
        gain = len(pairs[cells[i]] & missing)
        if queue and -queue[0][0] > gain:
            heapq.heappush(queue, (-gain, i))
            continue
        missing -= pairs[cells[i]]
        out.append(cells[i])
    return out
