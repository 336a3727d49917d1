"""What was measured, rendered; nothing is computed here."""
