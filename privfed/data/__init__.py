"""Interactions, splits, readers, item features and generated worlds."""
