"""Data sets on disk, which are read, checked and decoded once."""
