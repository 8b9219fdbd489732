"""URLs in the admin, and the rows that its lists show."""

from django.urls import reverse


def page_of(row) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def list_of(model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def rows_shown(response) -> list[int]:
    return [row.pk for row in response.context["cl"].result_list]
