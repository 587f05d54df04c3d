"""Decides what is trained next and records what became of it."""
