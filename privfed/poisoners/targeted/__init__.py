"""Poisoners that promote items by what their clients upload."""
