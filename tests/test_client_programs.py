"""Larger programs: what they send with our files in docs/clients/, and how they handle a refusal."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from alerts.models import SecurityAlert
from ingest.models import IngestEvent
from tests.support.fake_site import BUSY, HANG_UP, problem
from tests.support.live import free_port
from tests.support.real_clients import CLIENTS, adapt, need
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.real_client, pytest.mark.once]


@contextmanager
def running(command: list[str], folder: Path, **environment: str):
    """Run `command` in `folder`; yield a function that reads its output."""
    printed = folder / "printed"
    with printed.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield printed.read_text
    finally:
        process.terminate()
        process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # CrowdSec leaves its plugins running
        print(printed.read_text())  # pytest shows it if the test fails


def run_play(folder: Path, url: str, key: str = "dvc_x") -> str:
    """Run a play that ends with our tasks, and return its output. It never fails because of the report."""
    adapt("ansible.yml", folder, {"delay: 10": "delay: 0"})
    play = folder / "play.yml"
    play.write_text(
        "- name: Updates\n  hosts: localhost\n  connection: local\n  gather_facts: false\n"
        "  tasks:\n    - ansible.builtin.import_tasks: ansible.yml\n"
    )
    command = ["ansible-playbook", "-i", "localhost,", str(play), "-e", f"ingest_url={url}", "-e", f"ingest_key={key}"]
    environment = os.environ | {"HOME": str(folder), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert key not in done.stdout + done.stderr
    return done.stdout


class TestAnsible:
    @pytest.fixture(autouse=True)
    def _needed(self):
        need("ansible-playbook")

    def test_it_reports_a_play(self, server, key, tmp_path):
        run_play(tmp_path, server.url, key)
        assert IngestEvent.objects.get().data["message"] == "Updates is done on 1 hosts"

    def test_it_sends_the_same_bytes_again(self, site, tmp_path):
        site.answers += [HANG_UP, BUSY]
        run_play(tmp_path, site.url)
        assert len(site.bodies) == 3
        assert len(set(site.bodies)) == 1

    def test_a_refused_report_is_shown_and_not_sent_again(self, site, other_site, tmp_path):
        site.answers += [(307, {"Location": f"{other_site.url}/v1/ingest"}, b"")]
        assert "...ignoring" in run_play(tmp_path, site.url)
        assert (len(site.bodies), other_site.received) == (1, [])


class TestNodeRed:
    @pytest.fixture
    def flow(self, tmp_path):
        """Runs our flow in Node-RED."""
        need("node-red")
        adapt(
            "node-red.json",
            tmp_path,
            {'"randomFirst": "5"': '"randomFirst": "0"', '"randomLast": "15"': '"randomLast": "1"'},
        )
        command = ["node-red", "--userDir", str(tmp_path / "user"), "-p", str(free_port()), "node-red.json"]

        def run(url: str, key: str = "dvc_x"):
            return running(command, tmp_path, INGEST_URL=url, INGEST_KEY=key)

        return run

    def test_it_sends_telemetry(self, flow, server, key):
        with flow(server.url, key):
            wait_for(IngestEvent.objects.exists)
        assert IngestEvent.objects.get().data == {"cpu_percent": 12.5, "memory_percent": 45.2}

    def test_it_sends_the_same_bytes_again_until_they_are_refused(self, flow, site):
        site.answers += [HANG_UP, BUSY, problem(401), problem(400, "reason")]
        with flow(site.url) as printed:
            wait_for(lambda: "Because of reason." in printed())
        assert len(site.bodies) == 4
        assert len(set(site.bodies)) == 1
        assert len({headers["Idempotency-Key"] for _, headers, _ in site.received}) == 1


CROWDSEC = """
common: {{daemonize: false, log_media: stdout, log_level: info}}
config_paths: {{config_dir: {0}, data_dir: {0}/data, simulation_path: {0}/simulation.yaml,
  hub_dir: /usr/share/crowdsec/hub, index_path: /usr/share/crowdsec/hub/.index.json,
  notification_dir: {0}/notifications, plugin_dir: {0}/plugins}}
crowdsec_service: {{acquisition_path: {0}/acquis.yaml, parser_routines: 1}}
db_config: {{type: sqlite, db_path: {0}/data/crowdsec.db, use_wal: true}}
plugin_config: {{user: root, group: root}}
api:
  client: {{credentials_path: {0}/credentials.yaml}}
  server: {{listen_uri: "127.0.0.1:{1}", profiles_path: {0}/profiles.yaml, console_path: {0}/console.yaml}}
prometheus: {{enabled: false}}
"""
GATE = {  # a gate's log, and the scenario of someone entering a wrong code
    "simulation.yaml": "simulation: false",
    "credentials.yaml": "",
    "profiles.yaml": "name: default\nfilters: ['true']\ndecisions: [{type: ban, duration: 4h}]\n"
    "notifications: [ingestcloud]\non_success: break\n",
    "parsers/s00-raw/gate.yaml": "name: tests/gate\nonsuccess: next_stage\nfilter: 'true'\n"
    "grok: {pattern: 'wrong code from %{IP:ip}', apply_on: Line.Raw}\n"
    "statics: [{meta: source_ip, expression: evt.Parsed.ip}]\n",
    "scenarios/gate.yaml": "type: trigger\nname: tests/gate\ndescription: wrong code\nfilter: 'true'\n"
    "groupby: evt.Meta.source_ip\nlabels: {remediation: true}\n",
    "gate.log": "the gate has started\n",
}


def is_followed(log: Path) -> bool:
    """Whether a program has `log` open and is at its end. A line that was added earlier would be skipped."""
    processes = psutil.process_iter(["open_files"])
    return any(
        file.path == str(log) and file.position == log.stat().st_size
        for process in processes
        for file in process.info["open_files"] or ()
    )


class TestCrowdSec:
    @pytest.fixture
    def crowdsec(self, tmp_path):
        """Runs CrowdSec with our notification; yields a function that reads its output."""
        need("crowdsec", "cscli")
        if os.getuid() != 0:
            pytest.skip("CrowdSec's plugins must be owned by root")
        for name, text in GATE.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "acquis.yaml").write_text(f"filenames: ['{tmp_path}/gate.log']\nlabels: {{type: gate}}\n")
        (tmp_path / "config.yaml").write_text(CROWDSEC.format(tmp_path, free_port()))
        shutil.copytree("/etc/crowdsec/patterns", tmp_path / "patterns")
        for folder in ("data", "notifications", "plugins"):
            (tmp_path / folder).mkdir()
        # Debian 12 dropped `notification-` from its name, without which CrowdSec rejects it.
        shutil.copy("/usr/lib/crowdsec/plugins/http", tmp_path / "plugins" / "notification-http")
        register = ["cscli", "-c", "config.yaml", "machines", "add", "here", "--password", "x", "--force"]
        subprocess.run(register, cwd=tmp_path, check=True, capture_output=True, timeout=60)

        @contextmanager
        def run(url: str, key: str = "dvc_x"):
            set_up = {"http://127.0.0.1:8000": url, "PUT-THE-KEY-HERE": key, "group_wait: 5s": "group_wait: 1s"}
            adapt("crowdsec.yaml", tmp_path / "notifications", set_up)
            with running(["crowdsec", "-c", "config.yaml"], tmp_path) as printed:
                wait_for(lambda: is_followed(tmp_path / "gate.log"))
                with (tmp_path / "gate.log").open("a") as log:
                    log.write('gate "north": wrong code from 192.0.2.7\n')
                yield printed

        return run

    def test_it_sends_its_alerts(self, crowdsec, server, key):
        with crowdsec(server.url, key):
            wait_for(SecurityAlert.objects.exists)
        alert = SecurityAlert.objects.get()
        assert (alert.title, alert.severity, alert.source_ip) == ("tests/gate", "medium", "192.0.2.7")
        assert "performed 'tests/gate'" in alert.description

    def test_it_sends_the_same_bytes_again_after_no_answer(self, crowdsec, site):
        site.answers += [HANG_UP]
        with crowdsec(site.url):
            wait_for(lambda: len(site.bodies) == 2)
        assert len(set(site.bodies)) == 1


def test_tenzir_sends_suricatas_alerts(server, key, tmp_path):
    need("tenzir", "curl", "flock")
    (tmp_path / "ingestcloud.conf").write_text(f"INGEST_URL={server.url}\nINGEST_KEY={key}\n")
    adapt("suricata.tql", tmp_path, {"/usr/local/bin/": f"{CLIENTS}/"})
    environment = {"INGEST_CONFIG": str(tmp_path / "ingestcloud.conf"), "INGEST_SPOOL": str(tmp_path / "spool")}
    flow = {"timestamp": "2026-06-06T10:00:00.123456+0000", "src_ip": "192.0.2.7", "dest_ip": "10.0.0.1"}
    alert = {"signature_id": 1, "signature": 'ET SCAN "Potential" SSH Scan', "category": "Attempted Information Leak"}
    entries = [flow | {"event_type": "alert", "alert": alert | {"severity": n}} for n in (1, 2, 3, 4)]
    entries.insert(1, flow | {"event_type": "dns", "dns": {"rrname": "example.org"}})
    lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    command = ["tenzir", "-f", "suricata.tql"]
    settings = os.environ | environment | {"HOME": str(tmp_path)}
    subprocess.run(command, input=lines.encode(), cwd=tmp_path, env=settings, check=True, timeout=60)
    alerts = SecurityAlert.objects.order_by("id")
    assert [a.severity for a in alerts] == ["high", "medium", "low", "info"]
    assert {(a.title, a.source_ip) for a in alerts} == {('ET SCAN "Potential" SSH Scan', "192.0.2.7")}
