"""Which posteriors a command is about."""

import argparse
import os
from pathlib import Path

from benchmarks.posteriors.registry import GROUPS, SHAPES, names


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which posteriors are meant."""
    parser.add_argument("name", nargs="*", help="posteriors; default: all")
    parser.add_argument("--root", default=os.environ.get("JENSEN_DATA"), help="the folder of data sets")
    parser.add_argument("--group", nargs="+", choices=GROUPS, help="only these groups")
    kinds = list(dict.fromkeys(shape.kind for shape in SHAPES.values()))
    parser.add_argument("--kind", nargs="+", choices=kinds, help="only these kinds of shapes")
    parser.add_argument("--held-out", action=argparse.BooleanOptionalAction, help="only, or no, held-out posteriors")
    parser.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="I/N", help="the I-th of N parts, each of all kinds"
    )
    parser.add_argument("--out", type=Path, help="file to which the rows are appended, as JSON lines")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a process is ended")


def _shard(text: str) -> tuple[int, int]:
    i, n = map(int, text.split("/"))
    if not 1 <= i <= n:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N")
    return i, n


def chosen(options: argparse.Namespace) -> list[str]:
    """The posteriors asked for: by name, or by group, or all that can be loaded; of these, a part."""
    found = options.name or [
        name
        for group in options.group or (["shapes"] if options.kind else GROUPS)
        for name in names(group, options.held_out, options.root or "nowhere")
        if not options.kind or (name in SHAPES and SHAPES[name].kind in options.kind)
    ]
    part, parts = options.shard
    return found[part - 1 :: parts]
