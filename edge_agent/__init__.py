"""A small edge agent, to try the site with and to learn from. It imports nothing from the server.

`sources` reads this machine, `sender` delivers the events, `agent` does both in turn, `program` is the command line.
It needs psutil and requests: the extra `demo` in pyproject.toml.
"""
