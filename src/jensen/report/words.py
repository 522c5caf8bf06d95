"""What the report says to someone who has never seen such a report."""

MEANING = {
    "RELIABLE": "The checks found nothing wrong. Estimates and intervals below can be used as they are.",
    "DOUBTFUL": "Usable with care. Some checks are off: treat the intervals as rough, and read the reasons first.",
    "UNRELIABLE": "Do not use the intervals below. The fitted distribution misses part of what the model and data say.",
}

ENDINGS = {
    "converged": "the objective settled",
    "budget": "all allowed steps were used",
    "stalled": "no more progress at this step size",
    "diverged": "diverged, rolled back to the last good state",
    "interrupted": "interrupted",
}

OPTIONS = {
    "model": "Model", "family": "Family of q", "objective": "Objective", "gradient": "Gradient estimator",
    "plan": "Sampling plan", "n_samples": "Draws a step", "n_steps": "Steps allowed", "batch_size": "Rows a step",
    "n_restarts": "Restarts", "seed": "Seed", "averaged": "Last iterates averaged",
}  # fmt: skip

TITLES = {
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
    "summary": "Mean, standard deviation (sd) and 90% interval of each quantity, in the model's own units. mcse "
    "is the Monte Carlo error of the mean from a finite number of draws; it should be small against "
    "sd.",
}

ROWS_FIRST = " The first number in brackets counts the rows on which the verdict was made."

ALT = {
    "trace": "Line chart of the objective against the step, with a closer view of the last half",
    "weights": "Chart of the importance weights and their tail",
    "marginals": "Density of each coordinate with mean and interval, and its reweighted density",
    "pairs": "Scatter plots and contours of pairs of coordinates",
    "predictive": "Data drawn from the fitted model compared with the observed data",
    "samples": "Grid of samples from the model",
    "latent": "Map of the rows by their latents",
    "usage": "Bars: information carried by each latent",
}
