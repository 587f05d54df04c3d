"""From a folder of images on disk to batches on a device."""
