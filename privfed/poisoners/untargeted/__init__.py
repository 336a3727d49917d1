"""Poisoners that make the model worse."""
