"""What a network is worth on a whole split: metrics, logit adjustment, predictions."""
