"""What the report says to someone who has never seen such a report."""

MEANING = {
    "RELIABLE": "The checks found nothing wrong. Estimates and intervals below can be used as they are.",
    "DOUBTFUL": "Usable with care. Some checks are off: treat the intervals as rough, and read the reasons first.",
    "UNRELIABLE": "Do not use the intervals below. The fitted distribution misses part of what the model and data say.",
}

ENDINGS = {
    "converged": "the objective settled",
    "budget": "all allowed steps, or the budget, were used",
    "stalled": "no more progress at this step size",
    "diverged": "diverged, rolled back to the last good state",
    "interrupted": "interrupted",
}

RUNG_ENDINGS = {
    "converged": "the last method settled",
    "budget": "the last method used all it may",
    "stalled": "the last method made no more progress",
    "patience": "the last method was ended by its default patience",
    "diverged": "the last method diverged",
    "interrupted": "interrupted; the best so far",
}

DRAWS = {
    "none": "q, the fit", "importance": "draws resampled by weights", "chains": "draws of the chains",
    "particles": "particles",
}  # fmt: skip

OPTIONS = {
    "model": "Model", "family": "Family of q", "objective": "Objective", "gradient": "Gradient estimator",
    "plan": "Sampling plan", "n_samples": "Draws a step", "n_steps": "Steps allowed", "batch_size": "Rows a step",
    "n_restarts": "Restarts", "seed": "Seed", "averaged": "Last iterates averaged",
    "steps": "Steps taken by", "method": "Method taken", "method_options": "Options of the method", "asked": "Method asked for",
    "evaluations": "Evaluations of the log density",
    "budget": "Budget", "precision": "Precision", "plated": "A latent for each row", "local": "Latents of rows in q",
}  # fmt: skip

VALUES = {
    ("asked", "auto"): "auto: the cheapest that passes the checks",
    ("precision", "float64"): "double (64 bits)",
    ("precision", "float32"): "single (32 bits)",
    ("family", "Draws"): "a set of draws",
}

TITLES = {
    "ladder": "How was the posterior found?",
    "search": "Is there more than one mode?",
    "coordinates": "In which coordinates was it found?",
    "walls": "Where the posterior ends",
    "trace": "Did the optimisation finish?",
    "weights": "Does the fit match the model?",
    "marginals": "What was learned",
    "pairs": "How parameters move together",
    "predictive": "Does the fitted model reproduce the data?",
    "reconstructions": "What the latents keep of the data",
    "samples": "What the model imagines",
    "latent": "Where the rows lie",
    "usage": "How much of the latent space is used",
}

HOW_TO_READ = {
    "ladder": "Methods are tried from cheap to costly, until one passes every check. A bar is the time a method took, "
    "coloured by its verdict; ▸ marks the one whose result is shown. On the right each mark is one method's estimate "
    "of the log evidence. Methods that agree lie together, near the dashed line of the result; one that lies apart "
    "has missed part of the posterior, or found a part that the others missed.",
    "search": "A posterior may have several separate peaks, and a method sees only those that it comes near. Each dot is a "
    "place from which was looked, in the colour of the peak it led to; distances are in standard deviations of the "
    "heaviest peak, and grow logarithmically outwards. In grey: it led to none, or to where the fit has its mass anyway. "
    "Below on the right is what the search can promise: how likely it would have seen another peak with a tenth of the "
    "mass. Narrow peaks in many dimensions are beyond any search.",
    "coordinates": "Some posteriors are funnels: where one quantity is small, another has hardly any room. Methods fail in "
    "such narrow places. Above are draws as the model has them, below the same draws in the coordinates that were used, "
    "which were found by looking at how sharply the density is curved from place to place. A round cloud below means that "
    "the funnel is gone.",
    "walls": "The density of this model is zero beyond a limit, although it has not fallen off there. The limits were found by "
    "walking into them. Blue are draws; they should reach the line, and none lies beyond it.",
    "trace": "The fit climbs: higher is better. The thick line should end flat, in the panel of the last half "
    "too. A line that still rises needs more steps. The dashed line is the final value, from fresh draws of the "
    "result (and, with a latent for each row, from up to 100 rows), so it can lie a little off the curve.",
    "weights": "Each draw from the fit is weighted by how much the model prefers it. If the fit were exact, all "
    "weights would be equal. The tail index k-hat says how uneven they are: below 0.5 is good, 0.5 to "
    "0.7 is usable, and above 0.7 a few draws carry everything, which means the fit misses part of "
    "the answer.",
    "marginals": "Blue is the fitted distribution of each quantity: the dot is its mean, the bar holds 90% of it. "
    "The dashed line is the fit corrected by the weights above. Where the two agree, the fit can be "
    "trusted; where they part, believe the dashed line more.",
    "pairs": "Each dot is a draw; larger dots are draws the model prefers. The solid contours are the fit, the "
    "dashed ones the fit corrected by the weights. A tilt or a bend of the dashed contours that the "
    "solid ones lack is something the chosen family cannot express.",
    "predictive": "New data sets are drawn from the fitted model and set beside the real one. If the model is "
    "adequate, the real data look like one more draw. A fit can be perfect and fail this check: then "
    "the model is wrong, not the fit.",
    "reconstructions": "Each row of data is encoded into its few latent numbers and decoded again. What is lost or "
    "blurred is what the latents do not carry.",
    "samples": "Latents are drawn from the prior, without looking at any data, and decoded. Samples that look "
    "like the data mean that the model has learned their distribution, not only how to copy them.",
    "latent": "Each row of data is placed at the mean of its latents. Rows that look alike should lie together. "
    "With more than two latents the two directions of largest variance are shown.",
    "usage": "A latent whose distribution is the same for every row carries no information: the model ignores "
    "it. Few active latents can be a sign of too many latents, or of posterior collapse.",
    "summary": "Mean, standard deviation (sd) and 90% interval of each quantity, in the model's own units. mcse_mean "
    "and mcse_sd are the Monte Carlo errors of the two, from a finite number of draws; they should be small against sd. "
    "ess is how many independent draws the quantiles rest on. A mean or sd that the draws do not settle, because a tail "
    "holds more of it than they reach, or that does not exist, is left out and named as undetermined.",
}

CORRECTED_TITLES = {("chains", "weights"): "Where did the chains start?"}

CORRECTED = {
    ("importance", "weights"): "Fresh draws from q, with heavier tails added on purpose, are weighted by how much the "
    "model prefers each. If q were exact, all weights would be nearly equal. The tail index k-hat says how uneven they "
    "are: below 0.5 is good, 0.5 to 0.7 is usable, and above 0.7 a few draws carry everything. The draws below were "
    "picked by these weights.",
    (
        "importance",
        "marginals",
    ): "Blue are the draws the fit returns: draws from q, resampled by the weights above. They "
    "are corrected already, so there is no second curve to compare them with. The dot is their mean, the bar holds 90% "
    "of them.",
    (
        "importance",
        "pairs",
    ): "Each dot is a draw the fit returns, resampled by the weights above; the contours hold 50% "
    "and 90% of them. Tilts and bends are the posterior's own, also those that no Gaussian has.",
    ("chains", "weights"): "Fresh draws from the q the chains started from, with heavier tails added on purpose, are "
    "weighted by how much the model prefers each. The result does not rest on these weights: heavy ones (k-hat above "
    "0.7) say that q alone would not have done, and why chains were needed.",
    ("chains", "marginals"): "Blue are the draws the fit returns: those of the chains. They need no correction by "
    "weights, so there is no second curve to compare them with. The dot is their mean, the bar holds 90% of them.",
    ("chains", "pairs"): "Each dot is a draw of the chains; the contours hold 50% and 90% of them. Tilts and bends are "
    "the posterior's own, also those that no Gaussian has.",
}
TAILS = " The draws are fresh ones of q, with heavier tails added on purpose."
NAMED = (
    "One method was asked for by name, so no other was tried. The bar is the time it took, coloured by its verdict. On "
    "the right is its estimate of the log evidence, with a 90% interval."
)
TRAIL = "Methods in the order in which they were tried; ▸ marks the one whose result is shown. ELBO and log evidence in nats."


def lead(kind: str, origin: str = "none") -> str:
    """How to read a section, by what the draws are (`rungs.origin`)."""
    if origin == "particles" and ("chains", kind) in CORRECTED:
        return CORRECTED["chains", kind].replace("chains", "particles")
    return CORRECTED.get((origin, kind)) or HOW_TO_READ[kind]


def title(kind: str, origin: str = "none") -> str:
    if origin == "particles":
        return title(kind, "chains").replace("chains", "particles")
    return CORRECTED_TITLES.get((origin, kind)) or TITLES[kind]


ROWS_FIRST = " The first number in brackets counts the rows on which the verdict was made."

ALT = {
    "ladder": "Bars of the time each method took, coloured by verdict, beside each one's estimate of the log evidence",
    "search": "Map of the starts of the search for modes and of the modes found, beside what each holds",
    "coordinates": "Scatter plots of draws in the model's coordinates and in those that were used",
    "walls": "Histograms of draws with the ends of the density",
    "trace": "Line chart of the objective against the step, with a closer view of the last half",
    "weights": "Chart of the importance weights and their tail",
    "marginals": "Density of each coordinate with mean and interval, and its reweighted density",
    "pairs": "Scatter plots and contours of pairs of coordinates",
    "predictive": "Data drawn from the fitted model compared with the observed data",
    "samples": "Grid of samples from the model",
    "latent": "Map of the rows by their latents",
    "usage": "Bars: information carried by each latent",
}
