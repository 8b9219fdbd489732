"""The content security policy: strict on our own pages, and as strict as its theme allows in the admin."""

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponseBase

ADMIN = "/admin/"
# The theme's Alpine evaluates the expressions in attributes, and its templates style elements in theirs.
ADMIN_NEEDS = {"script-src": [SELF, UNSAFE_EVAL], "style-src": [SELF, UNSAFE_INLINE], "img-src": [SELF, "data:"]}


class PolicyMiddleware(CSPMiddleware):
    """django-csp's, with another policy for the admin."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if request.path_info.startswith(ADMIN):
            parts.replace = ADMIN_NEEDS
        return parts
