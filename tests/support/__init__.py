"""Shared by the tests and the test programs: servers, clients, events, and the expected shape of answers."""
