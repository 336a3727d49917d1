"""Homomorphic encryption of uploads, for additions only.

All but ``channel`` is free of torch: encryption runs in processes of its own.
"""
