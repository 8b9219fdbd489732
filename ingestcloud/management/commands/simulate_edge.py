"""`manage.py simulate_edge`: an edge agent on this machine, with the demo's device key if no other is given."""

from argparse import ArgumentParser, Namespace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

try:
    from edge_agent import program
except ModuleNotFoundError as error:
    raise CommandError(
        f"The edge agent needs {error.name}. Install it with: pip install -r requirements-demo.txt"
    ) from error


class Command(BaseCommand):
    help = program.DESCRIPTION
    requires_system_checks = ()  # a device knows nothing of the site's settings

    def add_arguments(self, parser: ArgumentParser) -> None:
        program.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.ending = ""  # the program ends its lines itself
        try:
            program.run(Namespace(**options), self.stdout, settings.DEMO_DEVICE_KEY)
        except program.NotDelivered as error:
            raise CommandError(str(error)) from error
