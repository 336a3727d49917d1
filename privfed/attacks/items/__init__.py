"""Attacks on what a client interacted with, and what only they use."""
