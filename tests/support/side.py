"""A tenant with a row of each model, for tests that look across the boundary between two tenants."""

from uuid import uuid4

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from alerts.models import GroupChange, GroupSearchEntry, SavedFilter
from devices.models import Device, DeviceKey, ProvisioningKey
from exports.models import ListExport, ListExportPart
from ingest.models import IngestBatch, IngestEvent, RefusalCount, RejectedBatch
from insights.models import COUNTS, DeviceHour, DeviceMinute, TenantHour, TenantMinute
from tenants import audit
from tenants.models import ActorKind, AuditEntry, Membership, Tenant, Verb
from tests.support.alert_rows import alert_row, suppression_rule


class Side:
    """A tenant with a row of each model; each row carries the tenant's name."""

    def __init__(self, name: str) -> None:
        now = timezone.now()
        self.name = name
        self.tenant = Tenant.objects.create(slug=name, name=name)
        self.device = Device.objects.create(tenant=self.tenant, name=f"{name}-press")
        self.key, self.plaintext = DeviceKey.objects.issue(self.device)
        self.provisioning_key, self.provisioning_plaintext = ProvisioningKey.objects.issue(self.tenant, f"{name}-hall")
        owner = {"tenant": self.tenant, "device": self.device, "received_at": now}
        digest = name.encode().ljust(32)
        self.batch = IngestBatch.objects.create(
            digest=digest, event_count=1, alert_count=1, byte_count=9, idempotency_key=f"{name}-1", **owner
        )
        self.event = IngestEvent.objects.create(
            batch=self.batch, kind="log", timestamp=now, data={"message": f"{name}-message"}, **owner
        )
        self.alert = alert_row(batch_id=self.batch.pk, timestamp=now, title=f"{name}-title", severity="high", **owner)
        self.rejected = RejectedBatch.objects.create(
            status=400, code="invalid_events", detail=f"{name}-detail", digest=digest, body=b"[]", byte_count=2,
            first_received_at=now, **owner,
        )  # fmt: skip
        # A staff user with every permission, for this tenant.
        self.user = User.objects.create_user(f"{name}-staff", is_staff=True)
        self.user.user_permissions.set(Permission.objects.all())
        self.user.tenants.add(self.tenant)
        self.change = GroupChange.objects.create(
            tenant=self.tenant, group=self.alert.group, operation=uuid4(), at=now, user=self.user,
            user_name=self.user.username, field=GroupChange.Field.NOTE, after=f"{name}-note",
        )  # fmt: skip
        # A server that another test has just used may add it, too.
        self.search_entry, _ = GroupSearchEntry.objects.get_or_create(
            group=self.alert.group, defaults={"tenant": self.tenant, "title": self.alert.title}
        )
        self.rule = suppression_rule(
            self.tenant, now, title=f"{name}-noise", reason=f"{name}-reason", created_by=self.user
        )
        counts = dict.fromkeys(COUNTS, 1) | {"tenant": self.tenant, "start": now}
        counted = [
            *(model.objects.create(device=self.device, **counts) for model in (DeviceMinute, DeviceHour)),
            *(model.objects.create(**counts) for model in (TenantMinute, TenantHour)),
            RefusalCount.objects.create(
                tenant=self.tenant, device=self.device, minute=now, code=f"{name}-code", requests=1
            ),
        ]
        self.export = ListExport.objects.create(
            user=self.user, model="devices.device", query=f"q={name}", tenants=[self.tenant.pk], steps=1, rows=1,
            files=1, bytes=9, finished_at=now, counts={str(self.tenant.pk): 1},
        )  # fmt: skip
        part = ListExportPart.objects.create(
            export=self.export, user=self.user, step=0, file=1, content=f"{name}-content\n".encode()
        )
        actor = audit.Actor(ActorKind.USER, self.user.pk, self.user.username)
        audit.record(Verb.DEVICE_CHANGED, self.device, after={"location": f"{name}-hall"}, actor=actor)
        self.entry = AuditEntry.objects.filter(tenant=self.tenant).latest("pk")
        self.saved_filter = SavedFilter.objects.create(user=self.user, name=f"{name}-filter", query="status=new")
        self.rows = {
            type(row): row
            for row in (
                self.tenant, self.device, self.key, self.provisioning_key, self.batch, self.event, self.alert,
                self.alert.group, self.rejected, self.change, self.rule, self.saved_filter, self.search_entry,
                self.entry, self.export, part, *counted,
            )
        }  # fmt: skip
        self.group = Group.objects.create(name=f"{name}-group")
        self.group.permissions.set(Permission.objects.all()[:1])
        self.user.groups.add(self.group)
        LogEntry.objects.log_actions(self.user.pk, [self.device], CHANGE, f"{name}-change", single_object=True)
        # The rows that say who belongs to the tenant, or that are about those users.
        self.people = {
            model: model._default_manager.filter(**{path: self.user.pk}).first()
            for model, path in {
                Membership: "user", User: "pk", Group: "user", LogEntry: "user", User.groups.through: "user",
                User.user_permissions.through: "user", Group.permissions.through: "group__user",
            }.items()
        }  # fmt: skip

    def row_of(self, model: type[Model]) -> Model:
        row = (self.rows | self.people).get(model)
        assert row is not None, f"{model.__name__} has a tenant: give each Side of tests/support/side.py a row of it."
        return row

    def all_of(self, model: type[Model]) -> set[Model]:
        """All rows of the tenant: the audit has one for each of the others."""
        return set(AuditEntry.objects.filter(tenant=self.tenant)) if model is AuditEntry else {self.rows[model]}

    def client(self) -> Client:
        client = Client()
        client.force_login(self.user)
        return client

    def state(self) -> list[dict[str, object]]:
        """Everything that is stored for this tenant."""
        return [
            type(row)._default_manager.filter(pk=row.pk).values().get() for row in (self.rows | self.people).values()
        ]
