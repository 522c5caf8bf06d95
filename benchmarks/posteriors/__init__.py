"""Posteriors of posteriordb as NumPyro models, with their reference draws."""
