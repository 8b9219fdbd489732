"""How the admin looks, and its way around."""

from typing import Any

from django.urls import reverse_lazy


def _item(title: str, icon: str, name: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(name)}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "IngestCloud",
    "SITE_HEADER": "IngestCloud",
    "SITE_SUBHEADER": "All times are UTC",
    "SITE_SYMBOL": "cloud_upload",
    "SITE_URL": reverse_lazy("live_alerts"),
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {
        "show_search": False,
        "navigation": [
            {
                "title": "Security",
                "items": [
                    _item("Live page", "sensors", "live_alerts"),
                    _item("Alerts", "shield", "admin:alerts_securityalert_changelist"),
                ],
            },
            {
                "title": "Fleet",
                "items": [
                    _item("Tenants", "apartment", "admin:devices_tenant_changelist"),
                    _item("Devices", "router", "admin:devices_device_changelist"),
                    _item("Device keys", "key", "admin:devices_devicekey_changelist"),
                ],
            },
            {
                "title": "Ingest",
                "items": [
                    _item("Events", "database", "admin:ingest_ingestevent_changelist"),
                    _item("Batches", "inventory_2", "admin:ingest_ingestbatch_changelist"),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _item("Users", "person", "admin:auth_user_changelist"),
                    _item("Groups", "group", "admin:auth_group_changelist"),
                ],
            },
        ],
    },
}
