"""The second look at keys and modules, when a batch is stored: the first may have come from a memory of the key."""

from itertools import compress

from devices.authentication import InvalidDeviceKey, known_keys
from devices.models import DeviceKey, Module
from ingest.batch import Batch
from ingest.errors import ModuleDisabled

Refusal = InvalidDeviceKey | ModuleDisabled


def refusal_of_each(batches: list[Batch]) -> list[Refusal | None]:
    """Why each of `batches` must be refused after all, None where its key and its modules are still good."""
    modules = [f"device__tenant__{module}_enabled" for module in Module]
    keys = DeviceKey.objects.usable().filter(pk__in={batch.key.pk for batch in batches})
    enabled = {pk: set(compress(Module.values, on)) for pk, *on in keys.values_list("pk", *modules)}
    refusals = [_refusal(batch, enabled) for batch in batches]
    if any(refusals):
        known_keys.clear()
    return refusals


def _refusal(batch: Batch, enabled: dict[int, set[str]]) -> Refusal | None:
    if batch.key.pk not in enabled:
        return InvalidDeviceKey()
    try:
        batch.check_modules(enabled[batch.key.pk])
    except ModuleDisabled as refusal:
        return refusal
    return None
