"""Decides which trial comes next, hands it to a worker and records the outcome."""

from sweeper.api import load_model as load_model
from sweeper.api import open_study as open_study
