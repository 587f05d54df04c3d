"""MLflow tracking: shows studies in MLflow, and reads nothing back."""
