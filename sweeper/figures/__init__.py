"""Figures of runs and studies, drawn in a separate process."""
