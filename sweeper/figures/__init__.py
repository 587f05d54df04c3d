"""Draws runs and studies, in a process of its own."""
