"""Samplers: exact corrections, started from a fitted q."""
