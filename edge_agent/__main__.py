"""`python -m edge_agent`: the agent without the server, on any machine with Python."""

import argparse
import sys

from edge_agent import program


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edge_agent", description=program.DESCRIPTION)
    program.add_arguments(parser)
    try:
        program.run(parser.parse_args(), sys.stdout)
    except program.NotDelivered as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
