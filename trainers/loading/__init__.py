"""The path from decoded images to augmented batches on a device."""
