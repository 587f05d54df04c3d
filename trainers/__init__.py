"""Trains one model: a recipe and a data set in, epochs out. Knows no Optuna, no MLflow, no command line."""
