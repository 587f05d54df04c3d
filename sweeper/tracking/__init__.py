"""Shows a study in MLflow and reads nothing back."""
