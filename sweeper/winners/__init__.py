"""What becomes of the best trials after a search: new seeds, retraining on train and val, and ensembles."""
