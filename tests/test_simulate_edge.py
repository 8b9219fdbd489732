import gzip
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from edge_agent import sources
from edge_agent.agent import Agent
from edge_agent.program import DEFAULT_BATCHES
from edge_agent.sender import Sender
from edge_agent.sources import LogFile, Telemetry, discover_self, make_event, sample_alerts, sample_backups
from ingest.serializers import EventSerializer
from tests.support.fake_site import BUSY, HANG_UP, problem
from tests.support.live import ROOT

pytestmark = pytest.mark.once


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def make_sender(site, lines):
    def make(**options) -> Sender:
        given = {"backoff": 0.01, "longest_backoff": 0.02, "timeout": 5.0} | options
        return Sender(f"{site.url}/v1/ingest", "dvc_test", lines.append, **given)

    return make


def numbered(*numbers: int) -> list[dict]:
    """Events numbered by `n`; a higher number is later."""
    start = datetime(2026, 6, 6, 10, tzinfo=UTC)
    return [make_event("log", {"level": "info", "message": "x", "n": n}, start + timedelta(seconds=n)) for n in numbers]


def deliver(sender: Sender, within: float = 5.0) -> None:
    """Call `attempt` until nothing is buffered or the sender stops."""
    deadline = time.monotonic() + within
    while sender.buffered and not sender.stopped:
        assert time.monotonic() < deadline, "still not delivered"
        time.sleep(sender.pause)
        sender.attempt()


class TestSender:
    def test_batches_are_ordered_by_timestamp_and_have_the_requested_size(self, site, make_sender):
        sender = make_sender(batch_size=2)
        sender.add(numbered(3, 1, 5, 2, 4))
        deliver(sender)
        assert site.numbers == [[1, 2], [3, 4], [5]]
        assert (sender.acknowledged, sender.retries, sender.refused) == (5, 0, 0)

    def test_it_sends_the_key_and_the_content_type(self, site, make_sender):
        sender = make_sender()
        sender.add(numbered(1))
        deliver(sender)
        [(_, headers, _)] = site.received
        assert headers["X-Device-Key"] == "dvc_test"
        assert headers["Content-Type"] == "application/json"
        assert "Content-Encoding" not in headers

    def test_it_compresses_if_asked_to(self, site, make_sender):
        sender = make_sender(compress=True)
        sender.add(numbered(1, 2))
        site.answers += [BUSY]
        deliver(sender)
        first, second = site.received
        assert first[1]["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(first[0])) == numbered(1, 2)
        assert second[0] == first[0]

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_it_sends_the_same_bytes_again_before_the_next_batch(self, site, make_sender, status):
        sender = make_sender(batch_size=1)
        sender.add(numbered(1, 2))
        site.answers += [problem(status)] * 3
        deliver(sender)
        assert site.numbers == [[1], [1], [1], [1], [2]]
        assert len(set(site.bodies[:4])) == 1
        assert (sender.requests, sender.retries, sender.acknowledged) == (5, 3, 2)

    def test_a_lost_connection_is_retried_with_the_same_bytes(self, site, make_sender, lines):
        sender = make_sender(batch_size=1)
        sender.add(numbered(1, 2))
        site.answers += [HANG_UP, HANG_UP]
        deliver(sender)
        assert site.numbers == [[1], [1], [1], [2]]
        assert "no answer" in lines[0]

    def test_no_event_is_lost_if_the_site_is_unreachable(self, make_sender, site, lines):
        site.stop()
        sender = make_sender()
        sender.add(numbered(1, 2))
        for _ in range(3):
            sender.attempt()
        assert sender.buffered == 2
        assert "Connection refused" in lines[0]

    def test_it_waits_as_long_as_the_site_asks_in_seconds(self, site, make_sender):
        sender = make_sender()
        sender.add(numbered(1))
        site.answers += [problem(503, headers={"Retry-After": "1"})]
        deliver(sender)
        assert site.received[1][2] - site.received[0][2] >= 1

    def test_it_waits_as_long_as_the_site_asks_with_a_date(self, site, make_sender):
        sender = make_sender()
        sender.add(numbered(1))
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        site.answers += [problem(429, headers={"Retry-After": later})]
        sender.attempt()
        assert 58 < sender.pause < 61

    @pytest.mark.parametrize("value", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
    def test_it_waits_at_most_an_hour(self, site, make_sender, value):
        sender = make_sender()
        sender.add(numbered(1))
        site.answers += [problem(503, headers={"Retry-After": value})]
        sender.attempt()
        assert 3500 < sender.pause < 3602

    def test_an_unreadable_retry_after_is_ignored(self, site, make_sender):
        sender = make_sender()
        sender.add(numbered(1))
        site.answers += [problem(503, headers={"Retry-After": "soon"})]
        deliver(sender)
        assert sender.acknowledged == 1

    def test_pauses_grow_up_to_the_limit(self, site, make_sender):
        sender = make_sender(backoff=1.0, longest_backoff=8.0)
        sender.add(numbered(1))
        site.answers += [BUSY] * 40
        pauses = []
        for _ in range(40):
            sender.attempt()
            pauses.append(sender.pause)
        for pause, full in zip(pauses, [1, 2, 4, 8, *[8] * 36], strict=True):
            assert full / 2 - 0.1 < pause <= full

    def test_events_that_the_answer_names_are_dropped_and_the_rest_is_sent(self, site, make_sender, lines):
        sender = make_sender()
        sender.add(numbered(0, 1, 2, 3))
        errors = [{"index": i, "field": "data.level", "code": "required", "detail": "Missing."} for i in (1, 3, 3)]
        site.answers += [problem(400, "invalid_events", errors=errors)]
        deliver(sender)
        assert site.numbers == [[0, 1, 2, 3], [0, 2]]
        assert (sender.acknowledged, sender.refused) == (2, 2)
        assert "data.level: Missing." in lines[0]

    @pytest.mark.parametrize("errors", [None, [], "all", [{"index": 99}], [{"index": "0"}], [None]])
    def test_a_400_that_names_no_event_drops_the_batch(self, site, make_sender, errors):
        sender = make_sender(batch_size=2)
        sender.add(numbered(1, 2, 3))
        site.answers += [problem(400, "malformed_json", errors=errors)]
        deliver(sender)
        assert site.numbers == [[1, 2], [3]]
        assert (sender.acknowledged, sender.refused) == (1, 2)

    def test_a_batch_that_is_too_large_is_split_in_order(self, site, make_sender):
        sender = make_sender(batch_size=3)
        sender.add(numbered(1, 2, 3, 4))
        site.answers += [problem(413, "too_many_events")] * 2
        deliver(sender)
        assert site.numbers == [[1, 2, 3], [1, 2], [1], [2], [3], [4]]
        assert (sender.acknowledged, sender.refused) == (4, 0)

    def test_an_event_that_is_too_large_on_its_own_is_dropped(self, site, make_sender):
        sender = make_sender(batch_size=1)
        sender.add(numbered(1, 2))
        site.answers += [(413, {"Content-Type": "text/html"}, b"<h1>nginx</h1>")]
        deliver(sender)
        assert site.numbers == [[1], [2]]
        assert (sender.acknowledged, sender.refused) == (1, 1)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_it_does_not_follow_a_redirect_but_says_where_it_leads(self, site, other_site, make_sender, status):
        sender = make_sender()
        sender.add(numbered(1))
        site.answers += [(status, {"Location": f"{other_site.url}/v1/ingest"}, b"")]
        deliver(sender)
        assert f"redirects to {other_site.url}/v1/ingest" in sender.stopped
        assert (sender.buffered, other_site.received) == (1, [])

    @pytest.mark.parametrize("status", [401, 403, 404, 415, 200])
    def test_an_answer_that_later_batches_would_get_too_stops_it(self, site, make_sender, status):
        sender = make_sender(batch_size=1)
        sender.add(numbered(1, 2))
        site.answers += [problem(status, "reason")]
        deliver(sender)
        assert sender.stopped == f"{status} reason Because of reason."
        assert site.numbers == [[1]]
        assert sender.buffered == 2

    def test_it_reports_what_was_sent_and_what_was_answered(self, site, make_sender, lines):
        sender = make_sender()
        sender.add(numbered(1, 2) + sample_alerts(1))
        site.answers += [BUSY]
        deliver(sender)
        size = len(site.bodies[0])
        assert lines[0].startswith(f"3 events (2 log, 1 security_alert), {size} bytes → 503 in ")
        assert "Because of storage_unavailable. Retrying in 0.0 s." in lines[0]
        assert "→ 204 in " in lines[1]


def assert_valid(events: list[dict]) -> None:
    assert events
    for event in events:
        serializer = EventSerializer(data=event)
        assert serializer.is_valid(), (event, serializer.errors)


class TestSources:
    def test_telemetry_is_valid_and_describes_this_machine(self):
        events = Telemetry().read()
        assert_valid(events)
        assert all(0 < event["data"]["memory_percent"] < 100 for event in events)

    def test_discovery_is_valid(self):
        for event in discover_self():
            assert_valid([event])

    def test_the_logs_of_this_machine_make_valid_events(self):
        for source in sources.log_sources():
            for event in source.read():
                assert_valid([event])

    def test_a_log_file_is_followed_from_its_last_lines(self, tmp_path):
        path = tmp_path / "app.log"
        path.write_text("".join(f"line {n}\n" for n in range(100)))
        source = LogFile(path)
        assert messages(source) == [f"line {n}" for n in range(90, 100)]
        assert messages(source) == []
        with path.open("a") as file:
            file.write("one\ntwo\nunfinis")
        assert messages(source) == ["one", "two"]
        with path.open("a") as file:
            file.write("hed\n")
        assert messages(source) == ["unfinished"]

    def test_a_log_file_is_followed_through_a_rotation(self, tmp_path):
        path = tmp_path / "app.log"
        path.write_text("before\n")
        source = LogFile(path)
        source.read()
        path.rename(tmp_path / "app.log.1")
        assert messages(source) == []
        path.write_text("after, and longer than before\n")
        assert messages(source) == ["after, and longer than before"]
        path.write_text("cut\n")
        assert messages(source) == ["cut"]

    def test_odd_bytes_in_a_log_make_valid_events(self, tmp_path):
        path = tmp_path / "app.log"
        path.write_bytes(b"NUL \0, latin \xe9, half \xed\xa0\x80\n\n  \n2026-99-99 99:99:99 no time\n")
        events = LogFile(path).read()
        assert len(events) == 2
        assert_valid(events)

    def test_the_journal_is_followed_by_its_cursor(self, tmp_path, monkeypatch):
        entries = [
            {"MESSAGE": "hello", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "sshd"},
            {"MESSAGE": "odd \0 \ud800", "PRIORITY": ["3", "4"], "SYSLOG_IDENTIFIER": ["a", "b"]},
            {"MESSAGE": None},
            {"MESSAGE": [104, 105]},
            {"MESSAGE": "last"},
        ]
        written = [
            {"__CURSOR": f"c{n}", "__REALTIME_TIMESTAMP": "1780740000500000", **e} for n, e in enumerate(entries)
        ]
        (tmp_path / "entries").write_text("\n".join(map(json.dumps, written)))
        program = tmp_path / "journalctl"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat {tmp_path}/entries\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        [journal] = sources.log_sources()
        events = journal.read()
        journal.read()
        assert_valid(events)
        assert [e["data"]["source"] for e in events] == ["sshd", "['a', 'b']", "journal"]
        assert [e["data"]["level"] for e in events] == ["error", "unknown", "unknown"]
        assert events[0]["timestamp"] == "2026-06-06T10:00:00.500000Z"
        assert (tmp_path / "asked").read_text().splitlines()[-1].endswith("--after-cursor=c4")

    def test_an_event_has_the_time_that_its_line_states(self, tmp_path):
        path = tmp_path / "app.log"
        path.write_text("2026-06-06T12:00:00.5+02:00 host app: hello\n")
        [event] = LogFile(path).read()
        assert event["timestamp"] == "2026-06-06T10:00:00.500000Z"
        assert event["data"]["message"] == "2026-06-06T12:00:00.5+02:00 host app: hello"

    def test_sample_alerts_are_valid_varied_and_of_every_severity(self):
        events = sample_alerts(50)
        assert len(events) == 50
        assert_valid(events)
        assert {e["data"]["severity"] for e in events} == {"info", "low", "medium", "high", "critical"}
        assert len({e["data"]["title"] for e in events}) >= 10
        assert len({json.dumps(e) for e in events}) == 50

    def test_sample_backups_are_pairs(self):
        events = sample_backups(3)
        assert_valid(events)
        jobs = {}
        for event in sorted(events, key=lambda event: event["timestamp"]):
            jobs.setdefault(event["data"]["job_id"], []).append(event["data"]["status"])
        assert list(jobs.values()) == [["started", "completed"]] * 3


def messages(source: LogFile) -> list[str]:
    return [event["data"]["message"] for event in source.read()]


class TestAgent:
    def test_it_keeps_reading_while_the_site_is_down(self, site, make_sender):
        sender = make_sender(backoff=1.0)
        site.answers += [HANG_UP]
        most = 0

        def progress() -> None:
            nonlocal most
            most = max(most, sender.buffered)

        each = len(Telemetry().read())
        Agent(sender, interval=0.02, rounds=5).run(progress)
        assert most >= 5 * each
        assert sender.acknowledged >= 5 * each
        assert site.bodies[0] == site.bodies[1]

    def test_no_more_logs_are_read_while_the_buffer_is_full(self, site, make_sender, monkeypatch):
        monkeypatch.setattr("edge_agent.agent.MAX_BUFFERED_EVENTS", 1)
        sender = make_sender(backoff=0.2, longest_backoff=0.2)
        sender.add(numbered(1))
        site.answers += [HANG_UP]
        Agent(sender, interval=0.02, rounds=1).run(lambda: None)
        assert [len(json.loads(body)) for body in site.bodies[:2]] == [1, 1]
        assert len(site.bodies) == 3


class TestCommand:
    def simulate(self, site, *arguments: str) -> str:
        out = StringIO()
        try:
            call_command("simulate_edge", "--url", site.url, "--interval", "0.01", *arguments, stdout=out)
        finally:
            self.said = out.getvalue()
        return self.said

    def test_it_sends_what_was_asked_for_and_ends(self, site):
        said = self.simulate(site, "--key", "dvc_x", "--batches", "2", "--alerts", "7", "--backups", "2", "--gzip")
        events = [event for body in site.bodies for event in json.loads(gzip.decompress(body))]
        kinds = [event["kind"] for event in events]
        assert (kinds.count("security_alert"), kinds.count("backup_event")) == (7, 4)
        assert kinds.count("telemetry") >= 2
        assert_valid(events)
        assert f"{len(events)} acknowledged, 0 buffered, 0 refused" in said.splitlines()[-1]
        assert "\x1b" not in said

    def test_the_key_comes_from_the_environment_or_else_from_the_demo(self, site, monkeypatch, settings):
        settings.DEMO_DEVICE_KEY = "dvc_demo"
        monkeypatch.delenv("DEVICE_KEY", raising=False)
        self.simulate(site, "--batches", "1")
        monkeypatch.setenv("DEVICE_KEY", "dvc_mine")
        self.simulate(site, "--batches", "1")
        assert [headers["X-Device-Key"] for _, headers, _ in site.received] == ["dvc_demo", "dvc_mine"]

    def test_without_a_key_it_says_how_to_get_one(self, site, monkeypatch, settings):
        settings.DEMO_DEVICE_KEY = ""
        monkeypatch.delenv("DEVICE_KEY", raising=False)
        with pytest.raises(CommandError, match="create_device"):
            self.simulate(site, "--batches", "1")

    def test_a_refused_key_ends_it_with_the_reason(self, site):
        site.answers += [problem(401, "invalid_device_key")]
        with pytest.raises(CommandError, match="not delivered: 401 invalid_device_key"):
            self.simulate(site, "--key", "dvc_x")
        assert len(site.received) == 1
        assert "0 acknowledged" in self.said

    def test_refused_events_make_it_fail_at_the_end(self, site):
        site.answers += [problem(400, "malformed_json")]
        with pytest.raises(CommandError, match="events were refused"):
            self.simulate(site, "--key", "dvc_x", "--batches", "2")
        assert len(site.received) == 2

    def test_a_terminal_shows_a_status_line_that_is_kept_up_to_date(self, site):
        terminal = StringIO()
        terminal.isatty = lambda: True
        call_command("simulate_edge", "--url", site.url, "--key", "dvc_x", "--batches", "1", stdout=terminal)
        assert "\r\x1b[K0 requests" in terminal.getvalue()
        assert terminal.getvalue().endswith("0 buffered, 0 refused\n")

    def test_ctrl_c_ends_it_with_a_summary(self, site):
        command = [sys.executable, "manage.py", "simulate_edge", "--url", site.url, "--key", "dvc_x", "--batches", "0"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as agent:
            assert "→ 204 in" in agent.stdout.readline()
            agent.send_signal(signal.SIGINT)
            try:
                rest, _ = agent.communicate(timeout=20)
            finally:
                agent.kill()
        assert rest.startswith("Interrupted.\n1 requests, 0 of them retries")
        assert agent.returncode == 0

    def test_an_unusable_url_is_reported(self):
        with pytest.raises(CommandError, match="Can't send to ftp:"):
            call_command("simulate_edge", "--url", "ftp://x", "--key", "dvc_x", "--batches", "1", stdout=StringIO())

    @pytest.mark.parametrize("option", ["--interval", "--batch-size"])
    def test_it_refuses_zero(self, site, option):
        with pytest.raises(CommandError, match="above zero"):
            self.simulate(site, "--key", "dvc_x", option, "0")

    @pytest.mark.parametrize("option", ["--batches", "--alerts", "--backups"])
    def test_it_refuses_negative_numbers(self, site, option):
        with pytest.raises(CommandError, match="must not be negative"):
            self.simulate(site, "--key", "dvc_x", f"{option}=-1")

    def test_it_ends_by_itself(self, site):
        self.simulate(site, "--key", "dvc_x")
        assert len(site.bodies) >= DEFAULT_BATCHES

    def test_it_runs_without_the_server(self, site):
        options = ["--url", site.url, "--key", "dvc_x", "--batches", "1"]
        code = "import sys; from edge_agent.__main__ import main; main(); print(sorted(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True)
        assert "→ 204 in" in done.stdout, done.stderr
        assert "'django'" not in done.stdout
        site.answers += [problem(401, "invalid_device_key")]
        refused = subprocess.run(
            [sys.executable, "-m", "edge_agent", *options], cwd=ROOT, capture_output=True, text=True
        )
        assert "not delivered: 401 invalid_device_key" in refused.stderr
        assert refused.returncode == 1
