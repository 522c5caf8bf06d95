"""Benchmarks: workloads, the sides that run them, and the harness that times the sides against each other."""
