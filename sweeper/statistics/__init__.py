"""Statistics over arrays: confusion, and the selection of ensembles."""
