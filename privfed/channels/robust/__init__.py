"""Robust rules: how a server combines uploads of which some may be forged."""
