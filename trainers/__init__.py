"""Training of one model: a recipe and a data set in, epochs out. Knows nothing of Optuna, MLflow or the CLI."""
