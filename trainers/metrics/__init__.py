"""Which metrics there are, what computes them, and which way they are better."""
