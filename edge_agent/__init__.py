"""A small edge agent, to try the site with and to learn from. It imports nothing of the server.

`sources` reads this machine, `sender` delivers what was read, `agent` does both in turn, `program` is its command line.
It needs psutil and requests: the extra `demo` in pyproject.toml.
"""
