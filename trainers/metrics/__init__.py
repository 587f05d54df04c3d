"""The names of the metrics, the code that computes them, and whether higher or lower is better."""
