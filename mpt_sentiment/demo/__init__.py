"""Demo of a trained model in a browser (extra `demo`)."""
