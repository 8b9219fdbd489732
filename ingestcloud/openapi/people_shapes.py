"""What people and their programs get. `alerts.representation` and the views of `alerts.api` make it."""

from rest_framework import serializers

from alerts.api.saved_filters import SavedFilterSerializer
from alerts.models import Disposition, GroupChange, Severity, Status, SuppressionRule


class NamedSerializer(serializers.Serializer):
    """A person or a device."""

    id = serializers.IntegerField()
    name = serializers.CharField()


class TenantSerializer(serializers.Serializer):
    slug = serializers.CharField()
    name = serializers.CharField()


class PreviousSerializer(serializers.Serializer):
    """The group before, with the same title and addresses."""

    id = serializers.IntegerField()
    disposition = serializers.ChoiceField(Disposition.choices, allow_null=True)
    status_changed_at = serializers.DateTimeField(allow_null=True)
    status_changed_by = serializers.CharField(allow_null=True)


class GroupSerializer(serializers.Serializer):
    """Alerts that are the same to an analyst."""

    id = serializers.IntegerField()
    tenant = TenantSerializer()
    title = serializers.CharField()
    severity = serializers.ChoiceField(Severity.choices, help_text="The worst of its alerts.")
    status = serializers.ChoiceField(Status.choices)
    disposition = serializers.ChoiceField(Disposition.choices, allow_null=True, help_text="If it is closed.")
    assignee = NamedSerializer(allow_null=True)
    source_ip = serializers.CharField(allow_null=True)
    destination_ip = serializers.CharField(allow_null=True)
    device = NamedSerializer(allow_null=True, help_text="Only if its alerts have no address.")
    count = serializers.IntegerField(help_text="Alerts that were not suppressed.")
    suppressed_count = serializers.IntegerField()
    since_acknowledged = serializers.IntegerField(allow_null=True, help_text="Alerts since it was acknowledged.")
    first_seen_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    last_alert_id = serializers.IntegerField()
    version = serializers.IntegerField(help_text="How often people changed it.")
    revision = serializers.IntegerField(help_text="The number of its last change, of all changes of groups.")
    status_changed_at = serializers.DateTimeField(allow_null=True)
    status_changed_by = serializers.CharField(allow_null=True)
    previous = PreviousSerializer(allow_null=True)


class GroupDetailSerializer(GroupSerializer):
    """A group, with what an analyst wants to know beside it."""

    description = serializers.CharField(help_text="Of its last alert.")
    earlier = GroupSerializer(many=True)
    related = GroupSerializer(many=True, help_text="Groups with one of its addresses.")
    assignable = NamedSerializer(many=True)
    may_triage = serializers.BooleanField()


class PageSerializer(serializers.Serializer):
    next = serializers.CharField(allow_null=True, help_text="The address of the next page.")


class GroupPageSerializer(PageSerializer):
    results = GroupSerializer(many=True)
    revision = serializers.IntegerField(help_text="Where the socket continues: `/api/ws/groups?since=…`.")
    now = serializers.DateTimeField()


class AlertSerializer(serializers.Serializer):
    """An alert as it was sent."""

    id = serializers.IntegerField()
    timestamp = serializers.DateTimeField(help_text="The device's clock.")
    received_at = serializers.DateTimeField(help_text="Our clock.")
    title = serializers.CharField()
    severity = serializers.ChoiceField(Severity.choices)
    source_ip = serializers.CharField(allow_null=True)
    destination_ip = serializers.CharField(allow_null=True)
    description = serializers.CharField()
    device = NamedSerializer()
    suppressed_by = serializers.IntegerField(allow_null=True, help_text="The id of the rule that suppressed it.")


class AlertPageSerializer(PageSerializer):
    results = AlertSerializer(many=True)


class ChangeSerializer(serializers.Serializer):
    """One field that a person changed."""

    id = serializers.IntegerField()
    operation = serializers.UUIDField()
    undoes = serializers.UUIDField(allow_null=True)
    at = serializers.DateTimeField()
    user = NamedSerializer()
    field = serializers.ChoiceField(GroupChange.Field.choices)
    before = serializers.CharField()
    after = serializers.CharField()


class ChangePageSerializer(PageSerializer):
    results = ChangeSerializer(many=True)


class BucketSerializer(serializers.Serializer):
    """The alerts of a part of the time, by severity."""

    start = serializers.DateTimeField()
    critical = serializers.IntegerField()
    high = serializers.IntegerField()
    medium = serializers.IntegerField()
    low = serializers.IntegerField()
    info = serializers.IntegerField()


class TimelineSerializer(serializers.Serializer):
    bucket_seconds = serializers.IntegerField()
    buckets = BucketSerializer(many=True)
    is_exact = serializers.BooleanField(help_text="False if there are more than the 20,000 newest alerts counted.")


class TopAddressSerializer(serializers.Serializer):
    """`count` is of alerts in the time of the filter."""

    value = serializers.CharField()
    count = serializers.IntegerField()


class TopDeviceSerializer(NamedSerializer):
    count = serializers.IntegerField()


class TopSerializer(serializers.Serializer):
    sources = TopAddressSerializer(many=True)
    destinations = TopAddressSerializer(many=True)
    devices = TopDeviceSerializer(many=True)


class SummarySerializer(serializers.Serializer):
    """Of the groups that pass a filter, or of the 10,000 that changed last."""

    total = serializers.IntegerField()
    is_exact = serializers.BooleanField()
    by_severity = serializers.DictField(child=serializers.IntegerField())
    by_status = serializers.DictField(child=serializers.IntegerField())
    timeline = TimelineSerializer()
    top = TopSerializer()


class LastChangeSerializer(serializers.Serializer):
    user = serializers.CharField()
    at = serializers.DateTimeField()
    field = serializers.CharField()
    after = serializers.CharField()


class StaleSerializer(serializers.Serializer):
    """A group that was left as it is, because somebody changed it before."""

    group = GroupSerializer()
    change = LastChangeSerializer(allow_null=True)


class RefusedSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()


class OutcomeSerializer(serializers.Serializer):
    operation = serializers.UUIDField()
    changed = GroupSerializer(many=True)
    stale = StaleSerializer(many=True)
    refused = RefusedSerializer(many=True)


class SavedFiltersSerializer(serializers.Serializer):
    results = SavedFilterSerializer(many=True)


class MyTenantSerializer(TenantSerializer):
    role = serializers.CharField(allow_null=True, help_text="None for a superuser who is no member.")
    may_triage = serializers.BooleanField()
    may_manage = serializers.BooleanField()


class MeSerializer(serializers.Serializer):
    user = NamedSerializer()
    tenants = MyTenantSerializer(many=True)


class EventSerializer(serializers.Serializer):
    """An event as it was sent."""

    id = serializers.IntegerField()
    kind = serializers.CharField()
    timestamp = serializers.DateTimeField(help_text="The device's clock.")
    received_at = serializers.DateTimeField(help_text="Our clock.")
    data = serializers.DictField()  # type: ignore[assignment]  # DRF's own has another use


class EventsSerializer(serializers.Serializer):
    results = EventSerializer(many=True)


class SuppressedSerializer(serializers.Serializer):
    """What a rule has suppressed so far."""

    alerts = serializers.IntegerField()
    is_exact = serializers.BooleanField(help_text="False if there are more.")
    last_at = serializers.DateTimeField(allow_null=True)


class SuppressionRuleSerializer(serializers.Serializer):
    """Suppresses the alerts of a tenant that meet all conditions; null or an empty title is met by any."""

    id = serializers.IntegerField()
    tenant = TenantSerializer()
    title = serializers.CharField(allow_blank=True)
    title_match = serializers.ChoiceField(SuppressionRule.Match.choices)
    source = serializers.CharField(allow_null=True, help_text="An address or a network.")  # type: ignore[assignment]  # DRF's own has another use
    destination = serializers.CharField(allow_null=True, help_text="An address or a network.")
    device = NamedSerializer(allow_null=True)
    worst_severity = serializers.ChoiceField(Severity.choices, help_text="Worse alerts are not suppressed.")
    reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    ends_at = serializers.DateTimeField()
    ended_by = serializers.CharField(allow_null=True, help_text="Who ended it early.")
    suppressed = SuppressedSerializer()


class SuppressionPageSerializer(serializers.Serializer):
    results = SuppressionRuleSerializer(many=True)
    next = serializers.CharField(allow_null=True)
    now = serializers.DateTimeField()


class SuppressionExampleSerializer(serializers.Serializer):
    group = GroupSerializer()
    alerts = serializers.IntegerField(help_text="That would have been suppressed.")


class SuppressionPreviewSerializer(serializers.Serializer):
    since = serializers.DateTimeField()
    alerts = serializers.IntegerField()
    groups = serializers.IntegerField()
    is_exact = serializers.BooleanField(help_text="False if only the newest alerts were looked at.")
    examples = SuppressionExampleSerializer(many=True)
