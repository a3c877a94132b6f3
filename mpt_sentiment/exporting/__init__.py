"""Trained models as ONNX graphs, and their use without torch."""
