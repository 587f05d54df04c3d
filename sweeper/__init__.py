"""Decides which trial comes next, has it run elsewhere, and records what happened."""
