"""Whatever anyone does on the pages, devices are not affected."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from django.contrib.auth.models import User

from tests.support.fairness import Others, assert_within, measures_waiting
from tests.support.live import HTTP

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


@measures_waiting
def test_forty_simultaneous_wrong_logins_do_not_delay_devices(start_server, transactional_db, key):
    server = start_server()
    User.objects.create_user("ada", password="correct horse")
    page = httpx.get(f"{server.url}/login/", **HTTP)
    form = {"username": "ada", "password": "wrong", "csrfmiddlewaretoken": page.cookies["ingestcloud_csrf"]}
    memory = psutil.Process(server.process.pid).memory_info().rss

    def log_in(number: int) -> int:
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}  # the server trusts this machine as its proxy
        return httpx.post(f"{server.url}/login/", data=form, cookies=page.cookies, headers=headers, **HTTP).status_code

    with Others(server, key) as others, ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(log_in, range(40)))
    assert set(answers) <= {200, 503}
    assert others.answers == {204}
    assert_within(1, max(others.waits))
    assert psutil.Process(server.process.pid).memory_info().rss - memory < 200 * 2**20
    server.stop()


@measures_waiting
def test_searches_for_many_words_do_not_delay_devices(start_server, transactional_db, key, make_alert, log_in):
    server = start_server()
    for number in range(2000):
        make_alert(title=f"Port scan {number}" * 20)
    cookie = {"Cookie": log_in(superuser=True)}
    words = " ".join(f"word{number}" for number in range(401))

    def search(_: int) -> int:
        address = f"{server.url}/admin/alerts/securityalert/"
        return httpx.get(address, params={"q": words}, headers=cookie, **HTTP).status_code

    with Others(server, key) as others, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(search, range(24)))
    assert set(answers) <= {200, 503}
    assert (
        "A search takes at most 10 words"
        in httpx.get(f"{server.url}/admin/alerts/securityalert/", params={"q": words}, headers=cookie, **HTTP).text
    )
    assert others.answers == {204}
    assert_within(1, max(others.waits))
    server.stop()
