"""What all lists of the admin have in common: how their tables look, and what they say about a search or a filter."""

import re

import pytest
from django.contrib import admin
from django.template import Context, Template
from django.test.html import parse_html
from unfold.admin import ModelAdmin

from alerts.models import SecurityAlert, SuppressionRule
from devices.models import Device, DeviceKey
from ingest.models import IngestBatch, RejectedBatch
from tenants.admin.pages import StaffPages
from tenants.models import Tenant
from tests.support.admin_pages import list_of, rows_shown
from tests.support.side import Side

pytestmark = pytest.mark.django_db

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
TABLE = re.compile(r'<table id="result_list".*?</table>', re.DOTALL)


@pytest.fixture
def side(db) -> Side:
    return Side("north")


@pytest.mark.parametrize("query", [{}, {"_popup": "1"}, {"o": "-1.2"}])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_table_is_the_one_that_unfold_would_draw(admin_client, side, model, query, monkeypatch):
    response = admin_client.get(list_of(model), query)
    ours = TABLE.search(response.text)[0]
    monkeypatch.setattr(StaffPages, "action_checkbox", ModelAdmin.action_checkbox)
    context = Context({name: response.context[name] for name in ("cl", "opts", "request")})
    theirs = TABLE.search(Template("{% load unfold_list %}{% unfold_result_list cl %}").render(context))[0]
    assert "data-label" in theirs
    assert parse_html(ours) == parse_html(theirs)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_list_searches_or_says_that_it_can_not(admin_client, side, model):
    response = admin_client.get(list_of(model), {"q": "no such thing"})
    assert rows_shown(response) == []
    assert admin.site.get_model_admin(model).search_fields or "This list can&#x27;t be searched." in response.text


@pytest.mark.parametrize("name", ["nowhere", "nowhere__in", "tenant__nowhere", "id__nowhere", "pk__password", "_"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_list_names_a_filter_that_it_does_not_have_and_shows_nothing(admin_client, side, model, name):
    response = admin_client.get(list_of(model), {name: "1"})
    assert response.status_code == 200
    assert f"Unknown filter “{name}”" in response.text
    assert rows_shown(response) == []


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (Device, {"online": "perhaps"}),
        (Device, {"tenant__id__exact": "north"}),
        (Device, {"registered_with__exact": "x"}),
        (Device, {"created_at__year": "x"}),
        (DeviceKey, {"state": "lost"}),
        (Tenant, {"module": "none"}),
        (SuppressionRule, {"state": "x"}),
        (IngestBatch, {"received_at_from_0": "2026-02-31"}),
        (IngestBatch, {"received_at_to_0": "2026-02-01", "received_at_to_1": "noon"}),
        (IngestBatch, {"received_at_from_1": "12:00"}),
    ],
)
def test_a_list_says_which_filter_has_a_wrong_value_and_shows_nothing(admin_client, side, model, query):
    response = admin_client.get(list_of(model), query)
    assert "no such value. Nothing was looked for." in response.text
    assert rows_shown(response) == []


def test_the_other_filters_stay_when_one_is_unknown(admin_client, side):
    response = admin_client.get(list_of(Device), {"nowhere": "1", "online": "never"})
    assert response.context["cl"].get_query_string() == "?online=never"


def test_nothing_is_revoked_through_a_filter_that_the_list_does_not_have(admin_client, side):
    """ "Revoke all that match" would otherwise be all keys there are."""
    everything = {"action": "revoke_selected", "_selected_action": [side.key.pk], "select_across": "1", "index": "0"}
    admin_client.post(f"{list_of(DeviceKey)}?nowhere=1", everything)
    side.key.refresh_from_db()
    assert side.key.state == "active"


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("tenant", "north"), ("device", "north-press"), ("device", "hall 7"), ("device", "Gateway"),
        ("key", "north-press"), ("key", "PREFIX"), ("provisioning_key", "north-hall"), ("provisioning_key", "PREFIX"),
        ("alert", "north-title"), ("alert", "198.51.100.7"), ("batch", "198.51.100.7"), ("batch", "198.51.100.0/24"),
        ("batch", "north-1"), ("rejected", "198.51.100.7"), ("rejected", "north-detail"), ("rejected", "north_code"),
        ("rule", "north-noise"), ("rule", "10.9.0.0/16"), ("rule", "north-reason"), ("user", "north-staff"),
        ("group", "north-group"),
    ],
)  # fmt: skip
def test_a_row_is_found_by_what_its_list_or_page_shows(admin_client, side, name, term):
    Side("south")
    Device.objects.filter(pk=side.device.pk).update(location="Hall 7", type="gateway")
    SecurityAlert.objects.filter(pk=side.alert.pk).update(source_ip="198.51.100.7")
    for model in (IngestBatch, RejectedBatch):
        model.objects.filter(tenant=side.tenant).update(source="198.51.100.7")
    RejectedBatch.objects.filter(pk=side.rejected.pk).update(code="north_code")
    SuppressionRule.objects.filter(pk=side.rule.pk).update(source="10.9.0.0/16")
    row = getattr(side, name)
    found = rows_shown(admin_client.get(list_of(row), {"q": term.replace("PREFIX", getattr(row, "prefix", ""))}))
    assert found == [row.pk]
