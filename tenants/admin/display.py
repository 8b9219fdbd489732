"""How admin pages show times, states and links."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model
from django.template.loader import render_to_string
from django.urls import get_script_prefix, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString


def exact(moment: datetime) -> str:
    """A time in UTC, marked as such."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(moment: datetime | None) -> str:
    """How long ago, in words, with the exact time in a tooltip."""
    return format_html('<span title="{}">{}</span>', exact(moment), naturaltime(moment)) if moment else "never"


def badge(state: str, colours: Mapping[Any, str | None], text: str = "") -> SafeString:
    """A state in its colour. unfold colours its own labels only in lists, this one on an object's page too."""
    return format_html(label(colours.get(state)), text or state)


@cache
def label(colour: str | None) -> SafeString:
    """unfold's label, with braces for its text: rendering its template for every row of a list would take long."""
    # The class is for colours that unfold lacks.
    return render_to_string("unfold/helpers/label.html", {"text": "{}", "variant": colour, "class": f"badge-{colour}"})


def page_of(row: Model) -> str:
    """The address of an object's page in the admin."""
    return page_pattern(type(row), get_script_prefix()).format(row.pk)


@cache
def page_pattern(model: type[Model], prefix: str) -> str:
    """The address of a model's pages on a site at `prefix`, with braces for the key: a list has many links."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
    return reverse(name, args=["{}"]).replace("%7B%7D", "{}")


def link_to(target: Model) -> SafeString:
    """A link to an object's page in the admin."""
    return format_html('<a class="text-link whitespace-nowrap" href="{}">{}</a>', page_of(target), target)


def related(row: Model, name: str) -> SafeString:
    """A link to a row's tenant, device or batch. The database does not check these keys, so the target may be gone."""
    try:
        return link_to(getattr(row, name))
    except ObjectDoesNotExist:
        return format_html("#{} (gone)", getattr(row, f"{name}_id"))
