"""Secure aggregation: the server learns the sum of masked uploads, and no upload."""
