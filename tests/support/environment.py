"""Early pytest plugin: the environment is complete before Django reads its settings."""

from tests.support.servers import STACK, complete_environment


def pytest_report_header() -> str:
    return f"stack: {STACK}"


complete_environment()
