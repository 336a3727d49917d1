"""Ways for uploads to reach the server."""
