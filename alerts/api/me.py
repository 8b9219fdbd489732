"""Who is logged in, and what they may do."""

from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import PersonView
from tenants.models import Membership, Role, Tenant


class MeView(PersonView):
    """The user of the session, with a role in each tenant that they may see; superusers need none."""

    def get(self, request: Request) -> Response:
        user = request.user
        roles = dict(Membership.objects.filter(user=user.pk).values_list("tenant", "role"))
        return Response(
            {
                "user": {"id": user.pk, "name": user.get_username()},
                "tenants": [
                    {
                        "slug": tenant.slug,
                        "name": tenant.name,
                        "role": roles.get(tenant.pk),
                        "may_triage": user.is_superuser or roles[tenant.pk] in (Role.ANALYST, Role.ADMIN),
                        "may_manage": user.is_superuser or roles[tenant.pk] == Role.ADMIN,
                    }
                    for tenant in Tenant.objects.for_user(user)
                ],
            }
        )
