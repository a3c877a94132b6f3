"""Loaders of raw downloads, one module per dataset."""
