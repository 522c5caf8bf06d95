"""Algorithms: siblings under one compiled loop, and solvers that end by themselves. Each is loaded when it is first used."""

from ..lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "batch_and_match": ["BatchAndMatch"],
        "contrastive_divergence": ["ContrastiveDivergence"],
        "dadvi": ["DADVI"],
        "gradient_vi": ["GradientVI"],
        "importance": ["Importance"],
        "laplace": ["Laplace"],
        "lbfgs": ["LBFGS"],
        "mcmc_improved": ["VCD", "Hoffman"],
        "mixture": ["ModeMixture"],
        "natural_gradient": ["NaturalGradient"],
        "pathfinder": ["Pathfinder"],
        "score_matching": ["GaussianScoreMatching"],
        "variational_em": ["VariationalEM"],
        "wake_sleep": ["ReweightedWakeSleep", "WakeSleep"],
    },
)
