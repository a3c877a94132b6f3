"""Prediction of many posts: sources, rows, batches, the model, and files."""
