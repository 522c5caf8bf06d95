"""Diagnostics: is the answer to be trusted?"""

from .psis import psis as psis
