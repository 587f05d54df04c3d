"""Work on the best trials after a search: confirmation with new seeds, retraining on train + val, ensembles."""
