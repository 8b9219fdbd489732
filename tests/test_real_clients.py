"""Third-party log shippers and scanners send to a running server, with nothing but configuration."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alerts.models import SecurityAlert
from ingest.models import IngestBatch, IngestEvent, RejectedBatch
from tests.support.fake_site import BUSY, Site, problem
from tests.support.live import free_port
from tests.support.real_clients import CLIENTS, THEIRS, adapt, examples, need
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.real_client, pytest.mark.once]


@pytest.fixture(params=[CLIENTS, THEIRS], ids=["ours", "theirs"])
def configurations(request) -> Path:
    if not request.param.exists():
        pytest.skip("these configurations are not next to this checkout")
    return request.param


@contextmanager
def running_syslog_ng(folder: Path, text: str) -> Iterator[None]:
    (folder / "conf").write_text(text)
    command = ["syslog-ng", "-F", "-f", "conf", "-R", "persist", "-p", "pid", "-c", "ctl"]
    with (folder / "syslog-ng.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(15)


@pytest.fixture
def syslog_ng(configurations, server, key, tmp_path):
    """Runs syslog-ng, and yields the port on which it accepts lines."""
    need("syslog-ng", "logger")
    port = free_port()
    text = (configurations / "syslog-ng.conf").read_text().replace("PUT-THE-KEY-HERE", key)
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("15514", str(port))
    with running_syslog_ng(tmp_path, text.replace("/var/lib/syslog-ng", str(tmp_path))):
        yield port


def our_syslog_ng(name: str, folder: Path, url: str, port: int = 0, key: str = "dvc_x", **more: str) -> str:
    """Our syslog-ng configuration `name`, adapted for a test."""
    set_up = {"PUT-THE-KEY-HERE": key, "http://127.0.0.1:8000": url, "/var/lib/syslog-ng": str(folder)}
    set_up |= (
        {"time-reopen(2)": "time-reopen(1)", "retries(5)": "retries(2)"} | ({"15514": str(port)} if port else {}) | more
    )
    return adapt(name, folder, set_up).read_text()


def log_lines(port: int, lines: list[str]) -> None:
    """Send lines with logger(1), once syslog-ng is listening."""
    command = ["logger", "-n", "127.0.0.1", "-P", str(port), "-T", "--rfc5424", "-t", "pump"]
    deadline = time.monotonic() + 15
    while subprocess.run([*command, "hello"], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "syslog-ng is not listening"
        time.sleep(0.1)
    subprocess.run(command, input="\n".join(lines).encode(), check=True, timeout=30)


def test_syslog_ng_sends_log_lines(syslog_ng):
    lines = [f'pump {n} pressure low "{n}" \\ °C' for n in range(250)]
    log_lines(syslog_ng, lines)
    wait_for(lambda: IngestEvent.objects.count() >= 251)

    events = IngestEvent.objects.filter(data__message__startswith="pump")
    assert sorted(event.data["message"] for event in events) == sorted(lines)
    event = events.first()
    assert (event.kind, event.data["level"], event.data["source"]) == ("log", "notice", "pump")
    assert abs(event.timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert IngestBatch.objects.count() < 100  # in batches, not line by line


def test_syslog_ng_gives_up_on_a_refused_batch_and_goes_on(syslog_ng, server, device_key):
    log_lines(syslog_ng, ["good"])
    wait_for(lambda: IngestEvent.objects.filter(data__message="good").exists())
    device_key.revoke()
    log_lines(syslog_ng, ["refused"])
    wait_for(lambda: "401" in server.log and "invalid_device_key" in server.log)
    assert not IngestEvent.objects.filter(data__message="refused").exists()


def test_nmap_sends_a_scan_of_this_machine(configurations, server, key, tmp_path):
    need("nmap", "xsltproc", "curl")
    scan, batch = tmp_path / "scan.xml", tmp_path / "batch.json"
    nmap = ["nmap", "-sT", "-p", f"{server.port},1", "-oX", str(scan), "127.0.0.1"]
    subprocess.run(nmap, check=True, capture_output=True, timeout=60)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stylesheet = str(configurations / "nmap-to-batch.xsl")
    with batch.open("wb") as out:
        subprocess.run(["xsltproc", "--stringparam", "ts", now, stylesheet, str(scan)], stdout=out, check=True)
    curl = ["curl", "-sS", "--fail-with-body", "--data-binary", f"@{batch}", "-H", "Content-Type: application/json"]
    curl += ["-H", f"X-Device-Key: {key}", f"{server.url}/v1/ingest"]
    subprocess.run(curl, check=True, timeout=30)

    event = IngestEvent.objects.get()
    assert (event.kind, event.data["ip"], event.data["open_ports"]) == ("discovery", "127.0.0.1", [server.port])
    assert event.data["mac"] is None
    assert event.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ") == now


def send_lines(port: int, lines: list[tuple[str, str]]) -> None:
    """Send lines of (timestamp, text), once syslog-ng is listening."""
    sent = "".join(f"<13>1 {timestamp} press pump - - - {text}\n" for timestamp, text in lines)
    wait_for(lambda: is_open(port))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent.encode())


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def messages_at(site: Site) -> list[str]:
    return [event["data"]["message"] for body in site.bodies for event in json.loads(body) if event["data"]["message"]]


NOW = "2026-06-06T10:00:00Z"


class TestOurSyslogNg:
    """How our configuration handles a refusal."""

    @pytest.fixture(autouse=True)
    def _needed(self):
        need("syslog-ng")

    def test_a_bad_line_does_not_hold_up_the_good_ones(self, server, key, tmp_path):
        port = free_port()
        with running_syslog_ng(tmp_path, our_syslog_ng("syslog-ng.conf", tmp_path, server.url, port, key)):
            send_lines(port, [(NOW, "good"), ("9999-12-31T23:59:59-14:00", "a clock out of order"), (NOW, "good too")])
            wait_for(lambda: IngestEvent.objects.filter(data__message__startswith="good").count() == 2)
            wait_for(RejectedBatch.objects.exists)
        assert RejectedBatch.objects.get().status == 200

    @pytest.mark.parametrize("status", [400, 413])
    def test_a_refused_batch_is_dropped_and_the_next_is_sent(self, site, tmp_path, status):
        port = free_port()
        site.answers += [problem(status)]
        with running_syslog_ng(tmp_path, our_syslog_ng("syslog-ng.conf", tmp_path, site.url, port)):
            send_lines(port, [(NOW, "refused")])
            wait_for(lambda: site.bodies)
            send_lines(port, [(NOW, "next")])
            wait_for(lambda: "next" in messages_at(site))
        assert messages_at(site).count("refused") == 1

    @pytest.mark.parametrize("answer", [problem(401), BUSY])
    def test_a_batch_is_retried_for_as_long_as_its_refusal_may_be_temporary(self, site, tmp_path, answer):
        port = free_port()
        site.answers += [answer] * 3
        with running_syslog_ng(tmp_path, our_syslog_ng("syslog-ng.conf", tmp_path, site.url, port)):
            send_lines(port, [(NOW, "kept")])
            wait_for(lambda: len(site.bodies) == 4)
        assert len(set(site.bodies)) == 1

    def test_lines_wait_on_disk_through_a_restart(self, site, tmp_path):
        port = free_port()
        text = our_syslog_ng("syslog-ng.conf", tmp_path, site.url, port)
        lines = {f"line {n}" for n in range(20)}
        site.answers += [BUSY] * 100
        with running_syslog_ng(tmp_path, text):
            send_lines(port, [(NOW, line) for line in lines])
            wait_for(lambda: lines <= set(messages_at(site)))
        site.answers.clear()
        site.received.clear()
        with running_syslog_ng(tmp_path, text):
            wait_for(lambda: lines <= set(messages_at(site)))


def test_suricata_sends_its_alerts_through_syslog_ng(server, key, tmp_path):
    need("syslog-ng")
    eve = tmp_path / "eve.json"
    flow = {
        "timestamp": "2026-06-06T10:00:00.123456+0200",
        "src_ip": "192.0.2.7",
        "dest_ip": "10.0.0.1",
        "proto": "TCP",
    }
    signature = 'ET SCAN "Potential" SSH Scan \\ OUTBOUND'
    alert = {"signature_id": 2001219, "rev": 20, "signature": signature, "category": "Attempted Information Leak"}
    entries = [flow | {"event_type": "alert", "alert": alert | {"severity": n}} for n in (1, 2, 3, 4)]
    entries.insert(1, flow | {"event_type": "dns", "dns": {"rrname": "example.org"}})
    entries.insert(2, flow | {"event_type": "alert", "alert": alert | {"severity": 1}, "src_ip": "fe80::1%eth0"})
    eve.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    path = {"/var/log/suricata/eve.json": str(eve)}
    text = our_syslog_ng("suricata-syslog-ng.conf", tmp_path, server.url, key=key, **path)
    with running_syslog_ng(tmp_path, text):
        wait_for(lambda: SecurityAlert.objects.count() == 4)
        wait_for(RejectedBatch.objects.exists)  # for the address with a zone
    alerts = SecurityAlert.objects.order_by("id")
    assert [a.severity for a in alerts] == ["high", "medium", "low", "info"]
    assert {(a.title, a.source_ip, a.destination_ip) for a in alerts} == {(signature, "192.0.2.7", "10.0.0.1")}
    assert alerts[0].timestamp == datetime(2026, 6, 6, 8, 0, 0, 123456, UTC)


def test_the_nmap_commands_in_the_docs_work(server, key, tmp_path):
    need("nmap", "xsltproc", "curl")
    [lines] = [text for text in examples("sh") if "nmap" in text]
    shutil.copy(CLIENTS / "nmap-to-batch.xsl", tmp_path)
    script = f"set -e; URL={server.url} KEY={key}\n{lines.replace('192.168.1.0/24', f'-p {server.port} 127.0.0.1')}"
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert IngestEvent.objects.get().data["open_ports"] == [server.port]
