"""URLs in the admin, and the rows that its lists show."""

import re

from django.urls import reverse


def page_of(row) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def list_of(model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def rows_shown(response) -> list[int]:
    return [row.pk for row in response.context["cl"].result_list]


def link(response, text: str) -> str | None:
    """Where the link to older or newer rows leads, None if a list has none with this text."""
    found = re.search(rf'<a class="text-link" href="([^"]+)" rel="(?:next|prev)">[^<]*{text}', response.text)
    return found and list_of(response.context["cl"].model) + found[1].replace("&amp;", "&")
