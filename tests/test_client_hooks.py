"""Programs that report by a hook: what they send with our files in docs/clients/, and how they handle a refusal."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alerts.models import SecurityAlert
from ingest.models import IngestBatch, IngestEvent
from tests.support.events import log
from tests.support.fake_site import BUSY, HANG_UP, problem
from tests.support.live import free_port
from tests.support.real_clients import CLIENTS, adapt, need
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.real_client, pytest.mark.once]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hooks(tmp_path):
    """Creates the environment of a machine on which `ingestcloud-send` is set up."""
    need("curl", "flock")

    def make(url: str, key: str = "dvc_x") -> dict[str, str]:
        (tmp_path / "ingestcloud.conf").write_text(f"INGEST_URL={url}\nINGEST_KEY={key}\n")
        (tmp_path / "refused").mkdir(exist_ok=True)
        settings = {"INGEST_CONFIG": str(tmp_path / "ingestcloud.conf"), "INGEST_SPOOL": str(tmp_path / "spool")}
        path = f"{CLIENTS}:/usr/sbin:{os.environ['PATH']}"
        return os.environ | settings | {"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}

    return make


def send(environment: dict[str, str], body: bytes = b"") -> str:
    """Run `ingestcloud-send` and return its output. It never fails once the batch is in the spool."""
    done = subprocess.run(["ingestcloud-send"], input=body, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).decode()


def spooled(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((folder / "spool").glob("*.json"))]


class TestIngestcloudSend:
    def test_it_sends_a_batch_and_forgets_it(self, hooks, server, key, tmp_path):
        assert send(hooks(server.url, key), json.dumps([log(message="€ \\ $(true)")]).encode()) == ""
        assert IngestEvent.objects.get().data["message"] == "€ \\ $(true)"
        assert spooled(tmp_path) == []

    def test_two_batches_with_the_same_bytes_are_both_stored(self, hooks, server, key):
        for _ in range(2):
            send(hooks(server.url, key), b'[{"kind":"log","timestamp":"2026-06-06T10:00:00Z","data":'
                                         b'{"level":"info","message":"the door opened"}}]')  # fmt: skip
        assert IngestBatch.objects.count() == 2

    @pytest.mark.parametrize("answer", [HANG_UP, BUSY, *map(problem, (200, 302, 401, 429, 500))])
    def test_a_batch_that_was_not_stored_is_sent_again_by_the_next_call(self, hooks, site, tmp_path, answer):
        environment = hooks(site.url)
        site.answers += [answer]
        assert "will retry" in send(environment, b"[1]")
        assert spooled(tmp_path) == [b"[1]"]
        assert send(environment, b"[2]") == ""
        assert send(environment) == ""
        assert site.bodies == [b"[1]", b"[1]", b"[2]"]
        names = [headers["Idempotency-Key"] for _, headers, _ in site.received]
        assert names[0] == names[1] < names[2]

    @pytest.mark.parametrize("status", [400, 403, 413, 415, 422])
    def test_a_refused_batch_is_set_aside_and_reported(self, hooks, site, tmp_path, status):
        site.answers += [problem(status, "reason")]
        assert "Because of reason." in send(hooks(site.url), b"[1]")
        send(hooks(site.url), b"[2]")
        assert site.bodies == [b"[1]", b"[2]"]
        assert [file.read_bytes() for file in (tmp_path / "spool" / "refused").iterdir()] == [b"[1]"]

    def test_calls_at_the_same_time_send_each_batch_once(self, hooks, site):
        calls = [subprocess.Popen(["ingestcloud-send"], stdin=subprocess.PIPE, env=hooks(site.url)) for _ in range(8)]
        for n, call in enumerate(calls):
            call.communicate(b"[%d]" % n, timeout=60)
        assert sorted(site.bodies) == [b"[%d]" % n for n in range(8)]

    def test_other_users_cannot_read_the_key_or_the_spool(self, hooks, site, tmp_path):
        fake = tmp_path / "bin" / "curl"
        fake.parent.mkdir()
        fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
        fake.chmod(0o755)
        environment = hooks(site.url, "dvc_secret")
        send(environment | {"PATH": f"{fake.parent}:{environment['PATH']}"}, b"[1]")
        assert "dvc_secret" not in (tmp_path / "arguments").read_text()
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "spool").rglob("*")} == {0}


def test_fail2ban_reports_a_ban(hooks, server, key, tmp_path):
    need("fail2ban-server", "fail2ban-client")
    for folder in ("action.d", "filter.d"):
        (tmp_path / folder).mkdir()
    (tmp_path / "fail2ban.conf").write_text("[Definition]\nloglevel = INFO\ndbfile = None\n")
    (tmp_path / "filter.d" / "gate.conf").write_text("[Definition]\nfailregex = ^\\s*gate: wrong code from <HOST>$\n")
    adapt("fail2ban.conf", tmp_path / "action.d", {"/usr/local/bin/": f"{CLIENTS}/"}).rename(
        tmp_path / "action.d" / "ingestcloud.conf"
    )
    log_file = tmp_path / "gate.log"
    log_file.write_text("")
    (tmp_path / "jail.conf").write_text(
        f"[gate]\nenabled = true\nfilter = gate\nlogpath = {log_file}\nbackend = polling\nmaxretry = 2\n"
        "action = ingestcloud\nfindtime = 10m\nbantime = 10m\n"
    )
    files = ["-c", str(tmp_path), "-s", str(tmp_path / "socket"), "-p", str(tmp_path / "pid")]
    with (tmp_path / "f2b.log").open("wb") as printed:
        fail2ban = subprocess.Popen(
            ["fail2ban-server", "-f", *files, "--logtarget", "stdout", "start"],
            env=hooks(server.url, key), stdout=printed, stderr=printed,
        )  # fmt: skip
    try:
        wait_for(lambda: "Jail 'gate' started" in (tmp_path / "f2b.log").read_text())
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        log_file.write_text(f"{now} gate: wrong code from 192.0.2.7\n" * 2)
        wait_for(SecurityAlert.objects.exists)
    finally:
        fail2ban.terminate()
        fail2ban.wait(15)
    alert = SecurityAlert.objects.get()
    assert (alert.title, alert.severity) == ("fail2ban: 192.0.2.7 banned by gate", "medium")
    assert (alert.source_ip, alert.description) == ("192.0.2.7", "2 failures")


def backups() -> list[tuple[str, str]]:
    return [(e.data["job_id"], e.data["status"]) for e in IngestEvent.objects.order_by("timestamp")]


@pytest.mark.parametrize("away", [False, True])
def test_borgmatic_reports_its_backups(hooks, server, key, tmp_path, away):
    """Even if the site is down: the backup is made anyway, and the reports come later."""
    need("borgmatic", "borg")
    environment = hooks(f"http://127.0.0.1:{free_port()}" if away else server.url, key)
    repository, folder = tmp_path / "repository", tmp_path / "files"
    folder.mkdir()
    (folder / "file").write_text("content")
    config = adapt("borgmatic.yaml", tmp_path, {"/usr/local/bin/": f"{CLIENTS}/"})
    config.write_text(
        f"location:\n    source_directories: [{folder}]\n    repositories: [{repository}]\n"
        f"retention:\n    keep_daily: 7\n{config.read_text()}"
    )

    def borgmatic(*arguments: str) -> int:
        return subprocess.run(
            ["borgmatic", "-c", str(config), *arguments], env=environment, capture_output=True, timeout=60
        ).returncode

    assert borgmatic("init", "--encryption", "none") == 0
    assert borgmatic("create") == 0
    (repository / "config").unlink()
    assert borgmatic("create") != 0
    if away:
        send(hooks(server.url, key))
    statuses = [status for _, status in backups()]
    assert statuses == ["started", "completed", "started", "failed"]


def test_restic_reports_its_backups(hooks, server, key, tmp_path):
    need("restic", "jq")
    environment = hooks(server.url, key) | {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "repository")}
    (tmp_path / "file").write_text("content")
    subprocess.run(["restic", "init"], env=environment, check=True, capture_output=True, timeout=60)
    for paths, code in ((["file"], 0), (["file", "/proc/self/mem"], 3), (["absent"], 1)):
        done = subprocess.run(["restic-backup", *paths], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
    jobs = backups()
    expected = ["started", "completed", "started", "incomplete", "started", "failed"]
    assert [status for _, status in jobs] == expected
    assert len({job for job, _ in jobs}) == 3
    completed = IngestEvent.objects.get(data__status="completed")
    assert completed.data["size_bytes"] == len("content")
    assert completed.data["snapshot_id"]


def test_mosquitto_forwards_telemetry(hooks, server, key, tmp_path):
    need("mosquitto", "mosquitto_sub", "mosquitto_pub", "jq")
    port = str(free_port())
    broker = subprocess.Popen(["mosquitto", "-p", port], stderr=subprocess.DEVNULL, env=hooks(server.url, key))
    bridge = None
    try:
        publish = ["mosquitto_pub", "-p", port, "-t", "site/press-01/telemetry", "-q", "1", "-m"]
        wait_for(lambda: subprocess.run([*publish, "x", "-t", "other"], capture_output=True).returncode == 0)
        bridge = subprocess.Popen(["mosquitto.sh", "-p", port], env=hooks(server.url, key), start_new_session=True)
        measured = json.dumps({"cpu_percent": 12.5, "memory_percent": 45})
        wait_for(lambda: subprocess.run([*publish, measured]).returncode == 0 and IngestEvent.objects.exists())
    finally:
        if bridge:
            os.killpg(bridge.pid, 15)
            bridge.wait(15)
        broker.terminate()
        broker.wait(15)
    data = IngestEvent.objects.first().data
    assert data == {"cpu_percent": 12.5, "memory_percent": 45, "device": "press-01"}
