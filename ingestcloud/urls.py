"""The site's URLs. `POST /v1/ingest` takes a shortcut in `ingestcloud.asgi`, with the same behaviour as the view."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeDoneView
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from ingestcloud import openapi  # noqa: F401  registers the OpenAPI descriptions of the views
from ingestcloud.admin import AutocompleteView, search
from ingestcloud.health import healthz, readyz
from ingestcloud.login import LoginForm, OwnPasswordView
from ingestcloud.paths import HEALTHZ, READYZ
from tenants.isolation import bypass_isolation
from tenants.members import MembersView

# During a login there is no user to act as yet. And the role of the pages can't change accounts, not even its user's
# own, or see failed logins. As a decorator, it is entered anew for each request.
with_accounts = bypass_isolation()
login = LoginView.as_view(redirect_authenticated_user=True, authentication_form=LoginForm)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="console")),
    path(HEALTHZ[1:], healthz),
    path(READYZ[1:], readyz),
    path("login/", with_accounts(login), name="login"),
    path("logout/", with_accounts(LogoutView.as_view()), name="logout"),
    path("password/", with_accounts(OwnPasswordView.as_view()), name="change_password"),
    path("admin/password_change/", RedirectView.as_view(pattern_name="change_password")),  # one page for all
    path(
        "password/done/",
        PasswordChangeDoneView.as_view(template_name="registration/password_done.html"),
        name="password_changed",
    ),
    path("members/", MembersView.as_view(), name="members"),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("admin/login/", with_accounts(admin.site.login)),
    path("admin/logout/", with_accounts(admin.site.admin_view(admin.site.logout))),
    path("admin/search/", admin.site.admin_view(search)),
    path("admin/autocomplete/", admin.site.admin_view(AutocompleteView.as_view())),
    path("admin/", admin.site.urls),
    path("api/v1/", include("alerts.api.urls")),
    path("alerts/", include("alerts.urls")),
    path("", include("devices.urls")),
    path("", include("ingest.urls")),
]
