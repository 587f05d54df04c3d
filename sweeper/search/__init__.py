"""Optuna in our words: ask, report, prune, tell, pause."""
