"""Command line of the benchmarks: `python -m benchmarks.run [WORKLOAD ...] [options]`."""

import argparse

from benchmarks import harness

WORKLOADS = ("logistic", "vae", "belief_net", "rbm", "flows", "vcd", "uivi")


def main():
    """Runs the chosen workloads, prints their tables and writes their rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("workload", nargs="*", default=WORKLOADS, help=f"any of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every side (default 1)")
    parser.add_argument("--out", help="file to which the rows are appended, as JSON lines")
    parser.add_argument("--data", help="folder of data sets; without it the data are synthetic where need be")
    parser.add_argument("--only", default="", help="run only the sides whose name contains this")
    parser.add_argument("--base", help="side that the others are compared with")
    options = parser.parse_args()
    if unknown := set(options.workload) - set(WORKLOADS):
        parser.error(f"unknown workload: {', '.join(sorted(unknown))}; there are: {', '.join(WORKLOADS)}")
    for name in options.workload:
        workload = harness.load(name)
        rows = harness.compare(workload, options.rounds, options.threads, options.data, options.only)
        harness.table(rows, options.base or workload.base)
        if options.out:
            harness.write(rows, options.out)


if __name__ == "__main__":
    main()
