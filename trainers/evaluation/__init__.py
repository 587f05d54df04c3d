"""Evaluation of a network on a whole split: metrics, logit adjustment, predictions."""
