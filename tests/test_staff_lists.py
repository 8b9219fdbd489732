"""What all lists of the admin have in common: how their tables look, and what they say about a search or a filter."""

import re

import pytest
from django.contrib import admin
from django.template import Context, Template
from django.test.html import parse_html
from unfold.admin import ModelAdmin

from tenants.admin.pages import StaffPages
from tests.support.admin_pages import list_of
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
