import socket
import stat
import subprocess
import sys
from io import StringIO

import dj_database_url
import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from dotenv import dotenv_values

from alerts.models import SecurityAlert
from devices.models import Device, DeviceKey
from ingest.models import IngestEvent
from ingestcloud.write_env import write_env
from tenants.models import Module, Tenant
from tests.support.live import ROOT
from tests.support.real_clients import need
from tests.support.sequences import set_back
from tests.support.servers import servers_only

pytestmark = pytest.mark.django_db

DEMO_KEY = DeviceKey.START + "only-for-tests-0123456789"
DEMO_PASSWORD = "a password for tests"


def run(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


class TestCreateTenant:
    def test_it_creates_a_tenant_with_modules(self):
        said = run("create_tenant", "acme", "--name", "Acme Ltd", "--module", "backup", "--module", "vpn")
        tenant = Tenant.objects.get(slug="acme")
        assert tenant.name == "Acme Ltd"
        assert tenant.modules == [Module.VPN, Module.BACKUP]
        assert said == "Tenant acme (Acme Ltd) created; modules: vpn, backup.\n"

    def test_the_name_defaults_to_the_slug(self):
        run("create_tenant", "acme")
        assert Tenant.objects.get().name == "acme"

    def test_running_it_again_adds_modules_and_removes_nothing(self):
        run("create_tenant", "acme", "--name", "Acme Ltd", "--module", "backup")
        said = run("create_tenant", "acme", "--module", "security")
        tenant = Tenant.objects.get()
        assert tenant.modules == [Module.SECURITY, Module.BACKUP]
        assert tenant.name == "Acme Ltd"
        assert "already exists" in said

    def test_it_sets_the_retention(self):
        run("create_tenant", "acme", "--retention-days", "90")
        run("create_tenant", "acme", "--module", "security")
        assert Tenant.objects.get().retention_days == 90

    @pytest.mark.parametrize("days", ["0", "-1", "36501"])
    def test_it_refuses_an_invalid_retention(self, days):
        with pytest.raises(CommandError, match=r"^retention_days: "):
            run("create_tenant", "acme", f"--retention-days={days}")
        assert not Tenant.objects.exists()

    def test_it_refuses_an_unknown_module_and_lists_the_known_ones(self):
        with pytest.raises(CommandError) as refusal:
            run("create_tenant", "acme", "--module", "firewall")
        assert all(module in str(refusal.value) for module in Module.values)
        assert not Tenant.objects.exists()

    @pytest.mark.parametrize("slug", ["two words", "a/b", "x" * 65, ""])
    def test_it_refuses_a_bad_slug(self, slug):
        with pytest.raises(CommandError, match=r"^slug: "):
            run("create_tenant", slug)
        assert not Tenant.objects.exists()


class TestCreateDevice:
    def test_it_prints_only_the_key(self, make_tenant):
        make_tenant(slug="acme")
        said = run("create_device", "acme", "press-01", "--type", "edge", "--location", "Hall 3")
        key = DeviceKey.objects.get()
        device = Device.objects.get()
        assert said.startswith(DeviceKey.START)
        assert said == said.strip() + "\n"
        assert key.digest not in said
        assert (device.tenant.slug, device.name, device.type, device.location) == ("acme", "press-01", "edge", "Hall 3")

    def test_the_key_works(self, make_tenant, server):
        make_tenant(slug="acme")
        key = run("create_device", "acme", "press-01").strip()
        call_command("simulate_edge", "--url", server.url, "--key", key, "--batches", "1", stdout=StringIO())
        assert IngestEvent.objects.filter(device__name="press-01").exists()

    def test_it_refuses_an_unknown_tenant_and_says_how_to_create_it(self):
        with pytest.raises(CommandError, match=r"no tenant 'acme'.*create_tenant acme"):
            run("create_device", "acme", "press-01")

    def test_it_refuses_an_existing_device_and_says_where_to_get_a_key(self, make_tenant):
        make_tenant(slug="acme")
        run("create_device", "acme", "press-01")
        with pytest.raises(CommandError, match=r"already.*Issue or rotate a key"):
            run("create_device", "acme", "press-01")
        assert DeviceKey.objects.count() == 1

    @pytest.mark.parametrize("name", ["", "x" * 201])
    def test_it_refuses_a_bad_name(self, make_tenant, name):
        make_tenant(slug="acme")
        with pytest.raises(CommandError, match=r"^name: "):
            run("create_device", "acme", name)
        assert not Device.objects.exists()


class TestTakenMeanwhile:
    """Another command or page takes the name after this one has found it free."""

    @pytest.fixture
    def overtake(self, monkeypatch):
        def overtake(model, **taken) -> None:
            def save(self, save=model.save, **kwargs) -> None:
                model.objects.bulk_create([model(**taken)])
                save(self, **kwargs)

            monkeypatch.setattr(model, "save", save)

        return overtake

    def test_a_device_is_refused_like_any_other_whose_name_is_taken(self, make_tenant, overtake):
        overtake(Device, tenant=make_tenant(slug="acme"), name="press-01")
        with pytest.raises(CommandError, match=r"already.*Issue or rotate a key"):
            run("create_device", "acme", "press-01")
        assert not DeviceKey.objects.exists()

    def test_a_tenant_is_refused_with_advice_to_try_again(self, overtake):
        overtake(Tenant, slug="acme", name="Acme")
        with pytest.raises(CommandError, match="again"):
            run("create_tenant", "acme", "--module", "backup")


@servers_only
@pytest.mark.parametrize("table", ["tenants", "devices"])
def test_a_name_whose_id_is_taken_is_not_called_taken(make_tenant, table):
    """The sequence is behind its table; the traceback says so."""
    for slug in ("acme", "other"):
        make_tenant(slug=slug)
        run("create_device", slug, "press-01")
    set_back(table)
    with pytest.raises(IntegrityError, match=f"{table}_pkey"):
        run("create_tenant", "new") if table == "tenants" else run("create_device", "acme", "press-02")


class TestSetupDemo:
    @pytest.fixture(autouse=True)
    def secrets(self, settings):
        settings.DEMO_DEVICE_KEY, settings.DEMO_ADMIN_PASSWORD = DEMO_KEY, DEMO_PASSWORD

    @pytest.fixture
    def port(self) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return str(probe.getsockname()[1])

    def test_it_creates_everything_and_prints_it(self, port):
        said = run("setup_demo", "--port", port)
        assert Tenant.objects.get(slug="demo").modules == list(Module)
        assert DeviceKey.objects.get().device.name == "demo-edge"
        assert get_user_model().objects.get(username="admin", is_superuser=True).check_password(DEMO_PASSWORD)
        for part in (f"http://127.0.0.1:{port}/alerts/", f"admin / {DEMO_PASSWORD}", DEMO_KEY, "simulate_edge"):
            assert part in said

    def test_a_second_run_changes_nothing_and_prints_the_same(self, port):
        first = run("setup_demo", "--port", port)
        assert run("setup_demo", "--port", port) == first
        assert (Tenant.objects.count(), Device.objects.count(), DeviceKey.objects.count()) == (1, 1, 1)

    def test_a_changed_password_is_left_alone(self, port):
        run("setup_demo", "--port", port)
        user = get_user_model().objects.get()
        user.set_password("my own")
        user.save()
        said = run("setup_demo", "--port", port)
        assert "the password that you set" in said
        assert DEMO_PASSWORD not in said
        assert get_user_model().objects.get().check_password("my own")

    def test_a_revoked_key_stays_revoked_and_is_not_printed(self, port):
        run("setup_demo", "--port", port)
        DeviceKey.objects.get().revoke()
        said = run("setup_demo", "--port", port)
        assert DEMO_KEY not in said
        assert "revoked" in said
        assert DeviceKey.objects.get().state == "revoked"

    @pytest.mark.parametrize("name", ["DEMO_DEVICE_KEY", "DEMO_ADMIN_PASSWORD"])
    def test_it_refuses_outside_make_run(self, settings, port, name):
        setattr(settings, name, "")
        with pytest.raises(CommandError, match=f"{name} is not set"):
            run("setup_demo", "--port", port)
        assert not get_user_model().objects.exists()

    def test_the_curl_line_works_as_it_stands(self, port, server):
        need("curl")
        said = run("setup_demo", "--port", port).replace(f"http://127.0.0.1:{port}", server.url)
        [line] = [line for line in said.splitlines() if line.startswith("curl")]
        answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
        assert " 204 " in answer.splitlines()[0]
        assert SecurityAlert.objects.get().title == "Port scan detected"
        assert sorted(IngestEvent.objects.values_list("kind", flat=True)) == ["security_alert", "telemetry"]


class TestCheckPort:
    def check(self, port: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", str(ROOT / "ingestcloud" / "check_port.py"), str(port)]
        return subprocess.run(command, capture_output=True, text=True)

    def test_a_port_in_use_is_reported_without_any_installed_packages(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            refused = self.check(port)
        assert refused.returncode == 1
        assert f"make run PORT={port + 1}" in refused.stderr
        assert self.check(port).returncode == 0

    def test_a_number_that_is_not_a_port_is_reported(self):
        assert "There is no port 70000." in self.check(70_000).stderr


class TestWriteEnv:
    def test_only_the_owner_can_access_the_file_it_writes(self, tmp_path):
        assert write_env(tmp_path) is True
        assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600

    def test_it_never_overwrites(self, tmp_path):
        (tmp_path / ".env").write_text("SECRET_KEY=mine\n")
        assert write_env(tmp_path) is False
        assert (tmp_path / ".env").read_text() == "SECRET_KEY=mine\n"

    def test_every_checkout_has_its_own_secrets(self, tmp_path):
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
            write_env(folder)
        one, two = (set((folder / ".env").read_text().splitlines()) for folder in folders)
        assert {line.partition("=")[0] for line in one - two} == {
            "SECRET_KEY", "DATABASE_URL", "DEMO_DEVICE_KEY", "DEMO_ADMIN_PASSWORD"
        }  # fmt: skip

    def test_the_settings_can_read_its_file_even_in_an_oddly_named_folder(self, tmp_path):
        folder = tmp_path / "a folder #1 with $HOME, 100 % and ü"
        folder.mkdir()
        write_env(folder)
        given = dotenv_values(folder / ".env")
        assert given["ALLOWED_HOSTS"] == "localhost,127.0.0.1,[::1]"
        assert len(given["SECRET_KEY"]) > 50
        assert given["DEMO_DEVICE_KEY"].startswith(DeviceKey.START)
        assert dj_database_url.parse(given["DATABASE_URL"])["NAME"] == str(folder / "ingestcloud.sqlite3")
