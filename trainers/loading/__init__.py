"""From decoded images to augmented batches on a device."""
