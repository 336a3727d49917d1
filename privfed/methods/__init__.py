"""Federated recommenders, one file each."""
