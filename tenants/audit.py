"""Records what people and commands did, in the transaction that does it. docs/decisions/0043 says why it is like this.

`watch` has the changes of a model recorded, whatever makes them: a form, an API, a command or a shell. What no single
`save` shows, such as an export, calls `record`. Both find out by themselves who acts, and from where.
"""

import os
import pwd
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_save, pre_delete, pre_save
from django.http import HttpRequest, HttpResponse

from common.headers import source_address
from tenants.isolation import bypass_isolation
from tenants.models import ActorKind, AuditEntry, TenantOwnedQuerySet, Verb
from tenants.models.audit import SIGN_INS

SIGN_INS_KEPT = timedelta(days=400)  # the database allows it after 365: its clock may differ from ours
STEP_ROWS = 5000  # that one transaction deletes
SECRETS = frozenset({"password"})  # fields whose values are never recorded, only that they changed
REQUEST_ID = re.compile(r"[\w.:/+=-]{1,64}", re.ASCII)


class Actor(NamedTuple):
    kind: ActorKind
    pk: int | None = None
    name: str = ""

    @classmethod
    def of(cls, user: Any) -> "Actor":
        """The user of a request; nobody if they are not signed in."""
        return cls(ActorKind.USER, user.pk, user.get_username()) if user.is_authenticated else cls(ActorKind.NOBODY)


_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)
_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


class AuditMiddleware:
    """Remembers the request whose changes are recorded. Must come after the middleware that sets the user."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """What is recorded within was done by `actor`, not by the user of the request."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def command(name: str) -> Actor:
    """A management command, with the user of the operating system who runs it."""
    uid = os.getuid()
    try:
        runs_it = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        runs_it = f"uid {uid}"
    return Actor(ActorKind.COMMAND, None, f"{name} ({runs_it})")


def current_actor() -> Actor:
    """Who acts now. Without a request it is the command of this process: a shell, or one of Django's own."""
    if actor := _actor.get():
        return actor
    if request := _request.get():
        return Actor.of(request.user)
    program = Path(sys.argv[0]).name
    return command(sys.argv[1] if program == "manage.py" and len(sys.argv) > 1 else program)


def record(verb: Verb, row: Model | None = None, **fields: Any) -> None:
    """Record that `verb` was done to `row`, in the open transaction. `fields` are those of `entry`."""
    made = entry(verb, row, **fields)
    # An entry of the site is shown to superusers alone, so others can't add one by themselves.
    with bypass_isolation() if made.tenant_id is None else nullcontext():
        made.save(force_insert=True)


def record_all(entries: Iterable[AuditEntry]) -> None:
    """Record several things at once, in the open transaction."""
    AuditEntry.objects.bulk_create(entries)


def entry(
    verb: Verb,
    row: Model | None = None,
    *,
    owner: Model | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    actor: Actor | None = None,
) -> AuditEntry:
    """An entry that is not saved yet. `owner` is what `row` belongs to, if it has no attribute that says so."""
    actor = actor or current_actor()
    request = _request.get()
    headers = request.META if request else {}
    request_id = headers.get("HTTP_X_REQUEST_ID", "")
    owner = owner or getattr(row, "owner", None)
    return AuditEntry(
        actor_kind=actor.kind,
        actor_id=actor.pk,
        actor_name=actor.name,
        source=source_address(headers),
        request_id=request_id if REQUEST_ID.fullmatch(request_id) else "",
        tenant_id=tenant_of(row) if row else None,
        verb=verb,
        object_type=row._meta.label_lower if row else "",
        object_id=row.pk if row else None,
        object_name=str(row) if row else "",
        owner_type=owner._meta.label_lower if owner else "",
        owner_id=owner.pk if owner else None,
        before=before or {},
        after=after or {},
    )


def tenant_of(row: Model) -> int | None:
    """The id of the tenant that `row` belongs to; None for what belongs to the site, such as a user."""
    rows = row._meta.model._default_manager.all()  # not of type(row): a request's user is of a class of its own
    if not isinstance(rows, TenantOwnedQuerySet):
        return None
    *steps, last = rows.tenant_path.split("__")
    target: Any = row
    for step in steps:
        target = getattr(target, step)
    return target.pk if last == "pk" else getattr(target, f"{last}_id")


class Watch:
    """Records the changes of one model.

    `changed` has the fields that are recorded, each with the verb for a change of it; `details` are more fields that an
    entry about a new row has.
    """

    def __init__(
        self,
        model: type[Model],
        *,
        added: Verb | Callable[[Any], Verb],
        changed: Mapping[str, Verb],
        removed: Verb | None = None,
        details: Iterable[str] = (),
    ) -> None:
        self.added, self.changed = added, changed
        self.details = (*details, *changed)
        _save_in_one_transaction(model)
        pre_save.connect(self.before_save, sender=model, weak=False)
        post_save.connect(self.after_save, sender=model, weak=False)
        if removed:  # before, while the user may still see the row, and it has its key
            pre_delete.connect(partial(self.before_delete, removed), sender=model, weak=False)

    def before_save(self, sender: Any, instance: Any, raw: bool, update_fields: Any, **kwargs: Any) -> None:
        is_looked_at = not raw and not instance._state.adding and self.fields_in(instance, update_fields)
        instance._before_save = sender._base_manager.filter(pk=instance.pk).first() if is_looked_at else None

    def after_save(
        self, sender: Any, instance: Any, created: bool, raw: bool, update_fields: Any, **kwargs: Any
    ) -> None:
        before = instance.__dict__.pop("_before_save", None)
        if created and not raw:
            self.record_added(instance)
        if before is None:
            return
        for verb, names in self.changes(before, instance, self.fields_in(instance, update_fields)).items():
            record(verb, instance, before=values(before, names), after=values(instance, names))

    def before_delete(self, verb: Verb, sender: Any, instance: Any, **kwargs: Any) -> None:
        record(verb, instance, before=filled(values(instance, self.details)))

    def record_added(self, row: Any) -> None:
        record(self.verb_for(row), row, after=filled(values(row, self.details)))

    def record_all_added(self, rows: Iterable[Any]) -> None:
        """After a `bulk_create`, of which Django tells no one."""
        record_all(entry(self.verb_for(row), row, after=filled(values(row, self.details))) for row in rows)

    def verb_for(self, added: Any) -> Verb:
        return self.added if isinstance(self.added, Verb) else self.added(added)

    def fields_in(self, row: Any, update_fields: Any) -> list[str]:
        """The fields that are both watched and saved."""
        return [name for name in self.changed if update_fields is None or name in update_fields]

    def changes(self, before: Any, row: Any, names: Iterable[str]) -> dict[Verb, list[str]]:
        """The fields that differ, by the verbs for them."""
        found: dict[Verb, list[str]] = {}
        for name in names:
            column = row._meta.get_field(name).attname
            if getattr(before, column) != getattr(row, column):
                found.setdefault(self.changed[name], []).append(name)
        return found


def watch_relation(relation: Any, verb: Verb, name_of: Callable[[Any], str] = str) -> None:
    """Record what is added to or removed from a many-to-many relation, such as the groups of a user."""

    def receive(
        sender: Any, instance: Any, action: str, reverse: bool, model: Any, pk_set: set[int] | None, **kwargs: Any
    ) -> None:
        if action not in ("post_add", "pre_remove", "pre_clear"):
            return
        field = relation.field
        if pk_set is not None:
            others = list(model._base_manager.filter(pk__in=pk_set))
        elif reverse:
            others = list(model._base_manager.filter(**{field.name: instance}))
        else:
            others = list(getattr(instance, field.name).all())
        for row, names in [(other, [instance]) for other in others] if reverse else [(instance, others)]:
            if names:
                change = {field.name: sorted(map(name_of, names))}
                record(verb, row, **{"after" if action == "post_add" else "before": change})

    m2m_changed.connect(receive, sender=relation.through, weak=False)


def values(row: Model, names: Iterable[str]) -> dict[str, Any]:
    """The values of fields as an entry has them: related objects by their names, and no secrets."""
    return {name: _value(row, name) for name in names if name not in SECRETS}


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` without what is empty or off."""
    return {name: value for name, value in given.items() if value not in (None, "", False)}


def _value(row: Model, name: str) -> Any:
    field: Any = row._meta.get_field(name)
    if not field.is_relation:
        return getattr(row, name)
    try:
        related = getattr(row, name)
    except ObjectDoesNotExist:
        return f"#{getattr(row, field.attname)}"
    return None if related is None else str(related)


def _save_in_one_transaction(model: Any) -> None:
    """Django commits a row that is saved outside a transaction before it tells anyone."""
    save = model.save

    @wraps(save)
    def save_and_record(self: Any, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic(savepoint=False):
            save(self, *args, **kwargs)

    model.save = save_and_record


def delete_expired(now: datetime) -> int:
    """Delete old entries about sign-ins, in small steps, and return their number. All others are kept for ever."""
    expired = AuditEntry.objects.filter(verb__in=SIGN_INS, at__lt=now - SIGN_INS_KEPT).order_by("at")
    count = 0
    while step := list(expired.values_list("pk", flat=True)[:STEP_ROWS]):
        count += AuditEntry.objects.filter(pk__in=step).delete()[0]
    return count
