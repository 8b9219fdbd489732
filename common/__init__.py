"""What every room may use. It has no models and imports nothing of ours."""
