"""privfed measures what a federated recommender leaks, and what defending it costs."""

__version__ = "0.1.0"
