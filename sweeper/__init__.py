"""Decides which trial comes next, has it run elsewhere, and records what happened."""

from sweeper.api import load_model as load_model
from sweeper.api import open_study as open_study
