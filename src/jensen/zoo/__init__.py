"""Ready-made models with the scikit-learn API, composed of jensen's parts."""

from .vae import VAE as VAE
