"""Data from files: tables, image sets, checked downloads."""

from .binarized import DynamicallyBinarized as DynamicallyBinarized
from .fetch import fetch as fetch
from .images import binarized_mnist as binarized_mnist
from .images import load_idx as load_idx
from .load import load_columns as load_columns
from .load import load_table as load_table
