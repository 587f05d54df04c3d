"""Talks to the person at the terminal."""
