"""Finished models: finding them by name, predicting with them, and exporting them."""
