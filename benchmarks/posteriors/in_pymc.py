"""A few of the posteriors as PyMC models, for the comparison of speed: same sites, same densities."""

import pymc as pm


def eight_schools_centered(y, scale):
    """Eight schools with the effects as parameters."""
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        theta = pm.Normal("theta", mu, tau, shape=len(y))
        pm.Normal("y", theta, scale, observed=y)
    return model


def eight_schools_noncentered(y, scale):
    """Eight schools with the standardised effects as parameters."""
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        theta_trans = pm.Normal("theta_trans", 0.0, 1.0, shape=len(y))
        pm.Normal("y", mu + tau * theta_trans, scale, observed=y)
    return model


def half_cauchy_regression(x, y):
    """Linear regression with flat coefficients and a half-Cauchy scale."""
    with pm.Model() as model:
        beta = pm.Flat("beta", shape=x.shape[1])
        sigma = pm.HalfCauchy("sigma", 2.5)
        pm.Normal("y", x @ beta, sigma, observed=y)
    return model


def german_credit(x, y):
    """Logistic regression, w ~ N(0, tau), centred."""
    with pm.Model() as model:
        tau, intercept = pm.HalfCauchy("tau", 1.0), pm.Normal("intercept", 0.0, 5.0)
        w = pm.Normal("w", 0.0, tau, shape=x.shape[1])
        pm.Bernoulli("y", logit_p=x @ w + intercept, observed=y)
    return model


def horseshoe(x, y):
    """Regression with a non-centred horseshoe prior."""
    with pm.Model() as model:
        tau, sigma = pm.HalfCauchy("tau", 1.0), pm.HalfNormal("sigma", 2.0)
        local = pm.HalfCauchy("lambda", 1.0, shape=x.shape[1])
        z = pm.Normal("z", 0.0, 1.0, shape=x.shape[1])
        pm.Normal("y", x @ (z * local * tau), sigma, observed=y)
    return model


def radon_centered(county, floor, y):
    """Varying intercepts for 85 counties, centred."""
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 10.0), pm.HalfNormal("tau", 1.0)
        beta, sigma = pm.Normal("beta", 0.0, 10.0), pm.HalfNormal("sigma", 1.0)
        alpha = pm.Normal("alpha", mu, tau, shape=85)
        pm.Normal("y", alpha[county] + beta * floor, sigma, observed=y)
    return model


MODELS = {
    "eight_schools-eight_schools_centered": eight_schools_centered,
    "eight_schools-eight_schools_noncentered": eight_schools_noncentered,
    "kidiq-kidscore_momhsiq": half_cauchy_regression,
    "german_credit": german_credit,
    "horseshoe": horseshoe,
    "radon_centered": radon_centered,
}
