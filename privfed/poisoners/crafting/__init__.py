"""What several poisoners build uploads from: scores, made-up data, rows."""
