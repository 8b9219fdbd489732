"""How the admin looks, and what its sidebar links to."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def entry(title: str, icon: str, model: str, permission: Callable[[HttpRequest], bool] | None = None) -> dict[str, Any]:
    """A sidebar entry for a model's list, shown to users who may look at it."""
    app, _, name = model.partition(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": permission or may_look_at(app, name),
    }


def may_look_at(app: str, name: str) -> Callable[[HttpRequest], bool]:
    def permission(request: HttpRequest) -> bool:
        return any(request.user.has_perm(f"{app}.{verb}_{name}") for verb in ("view", "change"))

    return permission


def is_superuser(request: HttpRequest) -> bool:
    return request.user.is_superuser


def is_staff(request: HttpRequest) -> bool:
    return request.user.is_staff


def never(request: HttpRequest) -> bool:
    """Never mark a link that leaves the admin as active. Judged by its URL, it would be on /admin/alerts/ too."""
    return False


UNFOLD = {
    "SITE_TITLE": "IngestCloud",
    "SITE_HEADER": "IngestCloud",
    "SITE_SUBHEADER": "All times are UTC",
    "SITE_SYMBOL": "shield",
    "SITE_URL": reverse_lazy("console"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("alerts/favicon.svg")},
    ],
    "STYLES": [lambda request: static("ingestcloud/admin.css")],
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "SHOW_HISTORY": may_look_at("tenants", "auditentry"),  # what the audit has about an object
    "COLORS": {
        # the blue of the console.
        "primary": {
            "50": "#eff6ff",
            "100": "#dbeafe",
            "200": "#bfdbfe",
            "300": "#93c5fd",
            "400": "#60a5fa",
            "500": "#3b82f6",
            "600": "#1d4ed8",
            "700": "#1e40af",
            "800": "#1e3a8a",
            "900": "#1c3372",
            "950": "#172554",
        }
    },
    "LOGIN": {"form": "ingestcloud.login.StaffLoginForm"},
    "DASHBOARD_CALLBACK": "ingestcloud.overview.dashboard",
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [
                    {"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")},
                    {"title": "Console", "icon": "sensors", "link": reverse_lazy("console"), "active": never},
                ],
            },
            {
                "title": "Security",
                "separator": True,
                "items": [
                    entry("Alert groups", "notification_important", "alerts.alertgroup"),
                    entry("Alerts", "fact_check", "alerts.securityalert"),
                    entry("Suppressions", "notifications_off", "alerts.suppressionrule"),
                ],
            },
            {
                "title": "Fleet",
                "separator": True,
                "items": [
                    entry("Tenants", "domain", "tenants.tenant"),
                    entry("Devices", "router", "devices.device"),
                    entry("Device keys", "key", "devices.devicekey"),
                    entry("Provisioning keys", "vpn_key", "devices.provisioningkey"),
                ],
            },
            {
                "title": "Ingest",
                "separator": True,
                "items": [
                    entry("Events", "list_alt", "ingest.ingestevent"),
                    entry("Batches", "inventory_2", "ingest.ingestbatch"),
                    entry("Rejected batches", "unpublished", "ingest.rejectedbatch"),
                    entry("Exports", "download", "exports.listexport", is_staff),
                ],
            },
            {
                "title": "Access",
                "separator": True,
                "items": [
                    entry("Users", "person", "auth.user", is_superuser),
                    entry("Groups", "group", "auth.group", is_superuser),
                    entry("Audit", "history", "tenants.auditentry"),
                ],
            },
        ],
    },
}
