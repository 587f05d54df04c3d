"""Shared foundations of training: files, checkpoints, checksums, errors, devices."""
