"""HTTP server of a trained model (extra `serve`)."""
