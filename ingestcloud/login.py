"""Logging in: limits on logins per address and on passwords hashed at once; each login is logged and recorded."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import axes.signals  # noqa: F401  its receivers must run before ours, which log whether the user is locked out
from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, UsernameField
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.db.models.signals import pre_save
from django.dispatch import receiver
from django.forms import CharField, PasswordInput, TextInput
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse_lazy
from unfold.forms import AuthenticationForm as UnfoldAuthenticationForm

from common import headers
from common.buckets import Buckets
from common.seldom import SeldomLine
from tenants.audit import Actor, record
from tenants.isolation import LOGIN_PATHS
from tenants.models import Verb
from tenants.sign_ins import record_failure

logger = logging.getLogger(__name__)

CHANGE_PATH = "/password/"
PASSWORD_PATHS = (*LOGIN_PATHS, CHANGE_PATH, "/admin/auth/user/")
HASHES_AT_ONCE = 2
MAX_WAITING = 20  # requests that wait for their turn to hash
TURN_SECONDS = 5.0  # how long such a request waits
PASSWORD_LENGTH = 4096  # characters; anything longer only makes work

too_many = SeldomLine(logger, logging.WARNING)
_hashing = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="password")

# By address, whatever the user name: enough for an office that starts its shift behind one address.
logins = Buckets(rate=0.5, burst=30)


class PasswordHasher(Argon2PasswordHasher):
    """Argon2id with the minimum that OWASP's Password Storage Cheat Sheet recommends: 19 MiB, two passes, one thread.

    Django's default takes 100 MiB and eight threads for each hash. Two threads compute all hashes, because the C
    library keeps the memory of every thread that has computed one.
    """

    time_cost = 2
    memory_cost = 19 * 1024  # KiB
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        return _hashing.submit(super().encode, password, salt).result()

    def verify(self, password: str, encoded: str) -> bool:
        return _hashing.submit(super().verify, password, encoded).result()


class LoginForm(AuthenticationForm):
    """Django's, but with length limits that the server enforces: Django's own is only in the page."""

    username = UsernameField(max_length=150, widget=TextInput(attrs={"autofocus": True}))
    password = CharField(
        strip=False,
        max_length=PASSWORD_LENGTH,
        widget=PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class StaffLoginForm(LoginForm, UnfoldAuthenticationForm):
    """The same for the admin, which accepts only staff. A correct password of another user is logged too."""

    def confirm_login_allowed(self, user: Any) -> None:
        try:
            super().confirm_login_allowed(user)
        except ValidationError:
            source = source_of(self.request)
            logger.warning("%s did not log in to the admin from %s: correct password, not staff", user, source)
            record_failure(self.request, user, "not staff")
            raise


class OwnPasswordForm(PasswordChangeForm):
    """Django's, but checks the old password like a login: wrong ones are logged, and too many lock the user out."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request
        self.fields["old_password"] = CharField(
            label="Old password",
            strip=False,
            max_length=PASSWORD_LENGTH,
            widget=PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
        )

    def clean_old_password(self) -> str:
        password = self.cleaned_data["old_password"]
        if authenticate(self.request, username=self.user.get_username(), password=password) is None:
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return password


class OwnPasswordView(PasswordChangeView):
    form_class = OwnPasswordForm
    template_name = "registration/password.html"
    success_url = reverse_lazy("password_changed")

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"request": self.request}

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        logger.info("%s changed their password from %s", self.request.user, source_of(self.request))
        return response


class PasswordMiddleware:
    """Limits, by address and by number at once, the requests to pages that hash a password.

    Runs outside the page's transaction, so a request that waits here holds no database connection.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._turns = threading.BoundedSemaphore(HASHES_AT_ONCE)
        self._places = threading.BoundedSemaphore(HASHES_AT_ONCE + MAX_WAITING)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST" or not request.path_info.startswith(PASSWORD_PATHS):
            return self.get_response(request)
        if request.path_info in LOGIN_PATHS and (seconds := logins.take(network_of(request))):
            too_many.write("Too many logins from %s", network_of(request))
            return card(request, 429, seconds, "too_many_logins.html")
        with self._turn() as has_turn:
            return self.get_response(request) if has_turn else card(request, 503, 5, "busy.html")

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Yield whether a turn came in time."""
        if not self._places.acquire(blocking=False):
            yield False
            return
        try:
            has_turn = self._turns.acquire(timeout=TURN_SECONDS)
            try:
                yield has_turn
            finally:
                if has_turn:
                    self._turns.release()
        finally:
            self._places.release()


def network_of(request: HttpRequest) -> str:
    """The address that django-axes and our own limit count logins for."""
    return headers.network_of(request.META)


def locked_out(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any]) -> HttpResponse:
    """429, with the time to wait, for a user name with too many wrong passwords from one address (django-axes)."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    return card(request, 429, seconds, "locked_out.html", limit=settings.AXES_FAILURE_LIMIT, minutes=seconds // 60)


def card(request: HttpRequest, status: int, seconds: int, template: str, **context: Any) -> HttpResponse:
    """A page shown instead of the login, with the seconds to wait."""
    page = render(request, f"registration/{template}", context | {"seconds": seconds}, status=status)
    page["Retry-After"] = str(seconds)
    return page


@receiver(pre_save, sender="axes.AccessAttempt")
def store_nothing_from_the_form(sender: Any, instance: Any, **kwargs: Any) -> None:
    """Count a wrong password whatever else was sent: values that the database can't store, or too much of them."""
    instance.get_data = instance.post_data = instance.http_accept = instance.path_info = ""


@receiver(user_logged_in)
def note_login(sender: Any, request: HttpRequest, user: Any, **kwargs: Any) -> None:
    logger.info("%s logged in from %s", user.get_username(), source_of(request))
    record(Verb.SIGNED_IN, user, actor=Actor.of(user))


@receiver(user_logged_out)
def note_logout(sender: Any, request: HttpRequest, user: Any, **kwargs: Any) -> None:
    if user is not None:
        logger.info("%s logged out from %s", user.get_username(), source_of(request))
        record(Verb.SIGNED_OUT, user, actor=Actor.of(user))


@receiver(user_login_failed)
def note_failure(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Log and record a failed login, without names that nobody has: people type their password there."""
    name = str(credentials.get(get_user_model().USERNAME_FIELD) or "")
    try:
        user = get_user_model().objects.filter(username=name).first()
    except (DatabaseError, ValueError):
        user = None
    if getattr(request, "axes_locked_out", False):
        reason = "locked out"
    elif user is None:
        reason = "no such user"
    else:
        reason = "wrong password" if user.is_active else "not active"
    who = user.get_username() if user else "An unknown name"
    action = "change their password" if request and request.path_info == CHANGE_PATH else "log in"
    logger.warning("%s did not %s from %s: %s", who, action, source_of(request), reason)
    record_failure(request, user, reason)


def source_of(request: HttpRequest | None) -> str:
    return (request.META.get("REMOTE_ADDR") if request else None) or "an unknown address"
