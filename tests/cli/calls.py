"""The command called in this process, and the models it is called on."""

from typer.testing import CliRunner

from jensen.cli.main import app

MODELS = '''
"""Models of every kind the command takes."""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import jensen as jn

print("a model file that prints")


def regression(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 3))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def closed():
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    numpyro.sample("y", dist.Normal(mu, 1), obs=jnp.ones(4))


def row(z, x):
    return -0.5 * ((x - z) ** 2).sum()


density = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
rows = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,), log_likelihood=row)


def factory():
    return rows, jnp.ones((5, 2))


def broken():
    return 1 / 0


number = 3
'''
ONE = """
import numpyro
from numpyro.distributions import Normal


def anything(y):
    numpyro.sample("m", Normal(0, 1))
"""
QUICK = ["--n-steps", "40", "--optimizer", "0.05", "--n-draws", "512", "--family", "mean-field"]


def call(*arguments):
    """The command in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def call_json(*arguments):
    """(what it printed on standard output, as strict JSON; all that it said)."""
    import json

    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=lambda c: 1 / 0), result
