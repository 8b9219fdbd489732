"""A small edge agent: `sources` reads this machine, `sender` delivers what was read."""
