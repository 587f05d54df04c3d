"""Training objectives and their minimisation: losses, optimizers, averages of the weights."""
