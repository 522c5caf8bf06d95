"""The methods that `fit` takes: `fit(model, method=NUTS(n_chains=16))`. Adding one is a line here.

Each is loaded when it is first used.
"""

from ..lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "ladder": ["Ladder"],
        "gradient": ["GradientVI", "Flow", "VariationalEM"],
        "side_by_side": ["AbstractSideBySide", "WakeSleep", "ReweightedWakeSleep", "Hoffman", "VCD"],
        "trained": ["AbstractTrained"],
        "em": ["EM"],
        "..algorithms.contrastive_divergence": ["ContrastiveDivergence"],
        "..algorithms.method": ["AbstractMethod", "Problem"],
        "..algorithms.solver": ["AbstractSolver", "Solution"],
        "..algorithms.laplace": ["Laplace"],
        "..algorithms.pathfinder": ["Pathfinder"],
        "..algorithms.lbfgs": ["LBFGS"],
        "..algorithms.dadvi": ["DADVI"],
        "..algorithms.natural_gradient": ["NaturalGradient"],
        "..algorithms.batch_and_match": ["BatchAndMatch"],
        "..algorithms.score_matching": ["GaussianScoreMatching"],
        "..algorithms.mixture": ["ModeMixture"],
        "..algorithms.importance": ["Importance"],
        "..samplers.conditional": ["ConditionalGaussian"],
        "..samplers.chains": ["HMC", "MALA"],
        "..samplers.nuts": ["NUTS"],
        "..samplers.smc": ["AnnealedSMC"],
    },
)
