"""What every part of training uses: files, checkpoints, checksums, errors, devices."""
