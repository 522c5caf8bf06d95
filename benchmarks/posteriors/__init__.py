"""Posteriors with references: posteriordb, hard classics and simulated ones; quality and speed measured on them."""
