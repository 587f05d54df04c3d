"""Finished models: which one a word on the command line means, and which images it is to look at."""
