"""The page on which admins of a tenant manage its members. Superusers manage those of every tenant."""

import logging
from typing import Any, cast

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views import View

from tenants.isolation import bypass_isolation
from tenants.models import Membership, Role, Tenant

logger = logging.getLogger(__name__)

# The same for a name that nobody has: it must not tell who has an account, and a superuser needs no membership.
UNKNOWN = "There is no account of this name that can be added."
LAST_ADMIN = "You are the only admin of this tenant. Make somebody else an admin first."


class AddForm(forms.Form):
    """An account that exists, by its exact name."""

    name = forms.CharField(label="User name", max_length=150)
    role = forms.ChoiceField(choices=Role.choices, initial=Role.ANALYST)

    def __init__(self, tenant: Tenant, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tenant = tenant

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        users = get_user_model().objects.filter(username=name, is_active=True, is_superuser=False)
        with bypass_isolation():
            self.user_id = users.values_list("pk", flat=True).first()
        if self.user_id is None:
            raise ValidationError(UNKNOWN)
        if Membership.objects.filter(tenant=self.tenant, user=self.user_id).exists():
            raise ValidationError("This account is a member already.")
        return name

    def save(self) -> Membership:
        """Raises IntegrityError if somebody else has added the account meanwhile."""
        with transaction.atomic():
            return Membership.objects.create(
                tenant=self.tenant, user_id=cast("int", self.user_id), role=self.cleaned_data["role"]
            )


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)


class MembersView(LoginRequiredMixin, View):
    """The members of one of the tenants that the user may manage: `?tenant=SLUG`, or the first."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not request.user.is_authenticated:
            return self.handle_no_permission()
        self.tenants = list(Tenant.objects.for_admin(request.user))
        if not self.tenants:
            raise PermissionDenied
        slug = request.GET.get("tenant", self.tenants[0].slug)
        by_slug = {tenant.slug: tenant for tenant in self.tenants}
        if slug not in by_slug:
            raise Http404
        self.tenant = by_slug[slug]
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page(AddForm(self.tenant))

    def post(self, request: HttpRequest) -> HttpResponse:
        if "remove" in request.POST:
            return self.change(request.POST["remove"], None)
        if "member" in request.POST:
            form = RoleForm(request.POST)
            if not form.is_valid():
                raise Http404
            return self.change(request.POST["member"], form.cleaned_data["role"])
        return self.add(AddForm(self.tenant, request.POST))

    def add(self, form: AddForm) -> HttpResponse:
        try:
            if not form.is_valid():
                return self.page(form)
            membership = form.save()
        except IntegrityError:
            return self.done()
        self.note(membership, f"Added as {membership.get_role_display().lower()}.")
        return self.done()

    def change(self, member: str, role: str | None) -> HttpResponse:
        """Give a member another role, or remove them if it is None."""
        if not (member.isascii() and member.isdecimal()):
            raise Http404
        membership = get_object_or_404(self.members(), pk=int(member[:18]), user__is_superuser=False)
        if membership.user == self.request.user and role != Role.ADMIN and self.is_last_admin(membership):
            return self.page(AddForm(self.tenant), LAST_ADMIN)
        if role is None:
            self.note(membership, "Removed.")
            membership.delete()
        elif role != membership.role:
            membership.role = role
            membership.save()
            self.note(membership, f"Role: {membership.get_role_display().lower()}.")
        return self.done()

    def is_last_admin(self, membership: Membership) -> bool:
        others = self.members().filter(role=Role.ADMIN, user__is_active=True).exclude(pk=membership.pk)
        return not self.request.user.is_superuser and not others.exists()

    def members(self) -> QuerySet[Membership]:
        return Membership.objects.filter(tenant=self.tenant).select_related("user").order_by("user__username")

    def note(self, membership: Membership, words: str) -> None:
        logger.info("Member %s by %s: %s", membership, self.request.user, words)

    def page(self, form: AddForm, error: str = "") -> HttpResponse:
        context = {
            "tenant": self.tenant,
            "tenants": self.tenants,
            "members": self.members(),
            "roles": Role.choices,
            "form": form,
            "error": error,
        }
        return render(self.request, "members.html", context, status=400 if error or form.errors else 200)

    def done(self) -> HttpResponse:
        return HttpResponseRedirect(reverse("members", query={"tenant": self.tenant.slug}))
