"""Programs that nobody here wrote send to a running server, by their configuration alone."""

import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.models import IngestBatch, IngestEvent
from tests.live import ROOT, free_port

pytestmark = pytest.mark.django_db(transaction=True)

# Ours, and where they lie beside the checkout, those that somebody else set up.
CONFIGURATIONS = [ROOT / "docs" / "clients", ROOT.parent / "shared" / "real-clients"]


def need(*programs: str) -> None:
    """Skip where a program is absent; where REAL_CLIENTS=required, absence is a failure."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent and os.environ.get("REAL_CLIENTS") == "required":
        pytest.fail(f"{', '.join(absent)} must be installed here")
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed (Debian: syslog-ng-core syslog-ng-mod-http nmap xsltproc curl)")


@pytest.fixture(params=CONFIGURATIONS, ids=["ours", "theirs"])
def configurations(request) -> Path:
    if not request.param.exists():
        pytest.skip("these configurations are not beside this checkout")
    return request.param


@pytest.fixture
def syslog_ng(configurations, server, key, tmp_path):
    """A running syslog-ng; gives the port on which it takes lines."""
    need("syslog-ng", "logger")
    port = free_port()
    text = (configurations / "syslog-ng.conf").read_text()
    text = text.replace("PUT-THE-KEY-HERE", key).replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    (tmp_path / "conf").write_text(text.replace("15514", str(port)))
    command = ["syslog-ng", "-F", "-f", "conf", "-R", "persist", "-p", "pid", "-c", "ctl"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    yield port
    process.terminate()
    process.wait(15)


def log_lines(port: int, lines: list[str]) -> None:
    """Send lines by logger(1), once syslog-ng listens."""
    command = ["logger", "-n", "127.0.0.1", "-P", str(port), "-T", "--rfc5424", "-t", "pump"]
    deadline = time.monotonic() + 15
    while subprocess.run([*command, "hello"], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "syslog-ng does not listen"
        time.sleep(0.1)
    subprocess.run(command, input="\n".join(lines).encode(), check=True, timeout=30)


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


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
