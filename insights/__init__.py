"""What is derived from the stored events, and the worker that keeps it up to date."""
