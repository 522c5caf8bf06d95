"""The cells that the default run holds to the reference: a pairwise cover of the axes, kept in `cover.txt`.

`python tests/conformance/cover.py` writes it anew; a test says when that is due.
"""

import functools
import heapq
import itertools
from pathlib import Path

import jax

from jensen.cells import Cell, Parts, compositions

FILE = Path(__file__).with_name("cover.txt")
COVER = [Cell(*line.split(" | ")) for line in FILE.read_text().splitlines()] if FILE.exists() else []


@functools.cache
def parts() -> Parts:
    with jax.enable_x64(True):
        return Parts()


def composed(cell: Cell) -> tuple:
    """(composition or error, rows) of a cell."""
    with jax.enable_x64(True):
        setting = parts().setting(cell)
        return parts().composition(cell, setting), setting.rows


@functools.cache
def everything() -> list:
    """All cells, as `compositions` gives them: about a minute."""
    with jax.enable_x64(True):
        return list(compositions())


@functools.cache
def valid() -> list[Cell]:
    """Those that are held to the reference if all are."""
    return [cell for cell, made, _, why in everything() if not why and made.gradient.unbiased]


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


if __name__ == "__main__":
    FILE.write_text("".join(f"{cell}\n" for cell in pairwise(valid())))
