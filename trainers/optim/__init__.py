"""What is minimised and how: losses, optimizers, averages of the weights."""
