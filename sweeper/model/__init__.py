"""Finished models: which one a word on the command line means, what it says of images, and its exports."""
