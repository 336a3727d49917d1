"""How well clients are served: one file for each task that a method can have."""
