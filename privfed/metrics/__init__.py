"""Scores: utility, leakage and cost."""
