"""Centralized recommenders to put beside federated ones.

They read everybody's training pairs in one place, so what they reach is what a
federated method may hope for. Each is a function of a world and a seed: rankers give
scores (clients, items), raters predictions of given pairs. ``measure`` judges them as
runs are judged, on the same candidates. All but VBPR come from libraries of the extra
``baselines``; MissingExtra names it where it is not installed.
"""
