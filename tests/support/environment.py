"""Early pytest plugin: completes the environment before Django reads its settings."""

from tests.support.servers import STACK, complete_environment


def pytest_report_header() -> str:
    return f"stack: {STACK}"


complete_environment()
