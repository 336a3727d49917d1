"""Attacks on how a client rated."""
