"""Runs one job in a process of its own."""
