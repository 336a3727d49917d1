"""What was really spent, measured from outside."""
