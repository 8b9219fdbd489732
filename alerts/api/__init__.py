"""The API for people: what the console's page asks and does."""
