"""Optuna in our words: ask, report, tell, enqueue."""
