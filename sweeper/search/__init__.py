"""Optuna behind an interface of our own: ask, report, prune, tell, pause."""
