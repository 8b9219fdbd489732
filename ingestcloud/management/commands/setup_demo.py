"""`manage.py setup_demo`: what `make run` needs to show more than an empty page."""

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db import transaction
from django.utils import timezone

from devices.keys import PREFIX_LENGTH, key_digest
from devices.models import Device, DeviceKey
from tenants.commands import AuditedCommand
from tenants.models import Module, Tenant

ADMIN = "admin"
# One line, so that it can be pasted anywhere. Its timestamps are new each time, because a repeat is stored only once.
CURL = (
    "curl -i {url}/v1/ingest -H 'X-Device-Key: {key}' -H 'Content-Type: application/json' -d '["
    """{{"kind":"security_alert","timestamp":"'$(date -u +%FT%TZ)'","data":{{"title":"Port scan detected","""
    """"severity":"high","source_ip":"192.168.1.100","destination_ip":"10.0.0.1","""
    """"description":"SYN scan from 192.168.1.100 on 256 ports"}}}},"""
    """{{"kind":"telemetry","timestamp":"'$(date -u +%FT%TZ)'","data":"""
    """{{"cpu_percent":12.5,"memory_percent":45.2}}}}]'"""
)
BLOCK = """
  Console       {url}/alerts/
  Admin         {url}/admin/
  Log in        {login}

  Send a batch, in another terminal:

{curl}

  Or let this machine send its own telemetry and log lines, with some sample alerts:

.venv/bin/python manage.py simulate_edge --url {url} --alerts 5 --backups 2

  Stop with Ctrl-C.
"""


class Command(AuditedCommand):
    help = "Create the demo's tenant, device, key and admin user if they are missing, and print how to use them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port", type=int, default=int(os.environ.get("PORT") or 8000), help="port that the server will use"
        )

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        plaintext, password = demo_secret("DEMO_DEVICE_KEY"), demo_secret("DEMO_ADMIN_PASSWORD")
        if not plaintext.startswith(DeviceKey.START):
            raise CommandError(f"DEMO_DEVICE_KEY must start with {DeviceKey.START}.")
        with transaction.atomic():
            key = make_key(make_device(), plaintext)
            login = make_login(password)
        url = f"http://127.0.0.1:{port}"
        curl = CURL.format(url=url, key=plaintext)
        if not key.is_usable(timezone.now()):
            curl = f"  The demo's key is {key.state}. Issue one in the admin and put it into .env as DEMO_DEVICE_KEY."
        self.stdout.write(BLOCK.format(url=url, login=login, curl=curl))


def demo_secret(name: str) -> str:
    """A secret of the demo, which `make run` writes into .env. Raises CommandError if it is missing."""
    if value := getattr(settings, name):
        return str(value)
    raise CommandError(
        f"{name} is not set. The demo is for `make run`, which writes it into a new .env; "
        "to use the demo with your own .env, add DEMO_DEVICE_KEY and DEMO_ADMIN_PASSWORD to it."
    )


def make_device() -> Device:
    """The demo's device; its tenant has every module."""
    modules = {f"{module}_enabled": True for module in Module}
    tenant, _ = Tenant.objects.get_or_create(slug="demo", defaults={"name": "Demo", **modules})
    device, _ = Device.objects.get_or_create(
        tenant=tenant, name="demo-edge", defaults={"type": "edge-simulator", "location": "this machine"}
    )
    return device


def make_key(device: Device, plaintext: str) -> DeviceKey:
    """The device key for `plaintext`, created if it is missing. A revoked key stays revoked: that can't be undone."""
    key, _ = DeviceKey.objects.get_or_create(
        digest=key_digest(plaintext), defaults={"device": device, "prefix": plaintext[:PREFIX_LENGTH]}
    )
    return key


def make_login(password: str) -> str:
    """Create the admin user if there is none; returns the name and password to log in with."""
    user_model = get_user_model()
    user = user_model.objects.filter(username=ADMIN).first()
    if user is None:
        user = user_model.objects.create_superuser(username=ADMIN, password=password)
    return f"{ADMIN} / {password if user.check_password(password) else 'the password that you set'}"
