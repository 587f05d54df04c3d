"""A data set on disk, read, checked and decoded once."""
