"""Poisoners that promote items by made-up profiles."""
