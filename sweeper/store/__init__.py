"""The files that a study leaves on disk."""
