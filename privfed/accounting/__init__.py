"""What a run released, and its epsilon."""
