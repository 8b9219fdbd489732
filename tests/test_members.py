"""`/members/`: admins of a tenant manage its members, and nobody else's."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tenants.models import Membership, Role, Tenant
from tests.support.side import Side

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/members/"


@pytest.fixture
def side() -> Side:
    """Its user is the admin of the tenant."""
    side = Side("ours")
    Membership.objects.filter(user=side.user).update(role=Role.ADMIN)
    return side


@pytest.fixture
def client(side) -> Client:
    return side.client()


def member(tenant: Tenant, name: str, role: Role = Role.ANALYST, **fields) -> Membership:
    return Membership.objects.create(tenant=tenant, user=User.objects.create_user(name, **fields), role=role)


def roles(tenant: Tenant) -> dict[str, str]:
    return dict(Membership.objects.filter(tenant=tenant).values_list("user__username", "role"))


def test_an_account_is_added_by_its_exact_name(side, client):
    User.objects.create_user("ana")
    assert client.post(PAGE, {"name": "ana", "role": "viewer"}).status_code == 302
    assert roles(side.tenant) == {"ours-staff": "admin", "ana": "viewer"}
    assert "ana" in client.get(PAGE).text


def test_nothing_tells_whether_somebody_has_an_account(side, client):
    User.objects.create_superuser("root")
    User.objects.create_user("gone", is_active=False)
    pages = [client.post(PAGE, {"name": name, "role": "viewer"}) for name in ("nobody", "root", "gone", "An%", "\x00a")]
    assert {page.status_code for page in pages} == {400}
    assert all("no account of this name that can be added" in page.text for page in pages[:-1])
    assert roles(side.tenant) == {"ours-staff": "admin"}


def test_a_member_is_added_once(side, client):
    member(side.tenant, "ana", Role.VIEWER)
    page = client.post(PAGE, {"name": "ana", "role": "admin"})
    assert (page.status_code, "is a member already" in page.text) == (400, True)
    assert roles(side.tenant)["ana"] == "viewer"


def test_roles_are_changed_and_members_removed(side, client):
    ana, ben = member(side.tenant, "ana"), member(side.tenant, "ben")
    client.post(PAGE, {"member": ana.pk, "role": "admin"})
    client.post(PAGE, {"remove": ben.pk})
    assert roles(side.tenant) == {"ours-staff": "admin", "ana": "admin"}
    assert User.objects.filter(username="ben").exists()


def test_the_only_admin_stays_one(side, client):
    own = Membership.objects.get(user=side.user)
    for form in ({"member": own.pk, "role": "analyst"}, {"remove": own.pk}):
        page = client.post(PAGE, form)
        assert (page.status_code, "the only admin" in page.text) == (400, True)
    member(side.tenant, "ana", Role.ADMIN)
    assert client.post(PAGE, {"member": own.pk, "role": "analyst"}).status_code == 302
    assert client.get(PAGE).status_code == 403


def test_superusers_and_members_of_other_tenants_are_left_alone(side, client):
    theirs = Side("theirs")
    root = Membership.objects.create(tenant=side.tenant, user=User.objects.create_superuser("root"))
    others = Membership.objects.get(user=theirs.user)
    before = list(Membership.objects.order_by("pk").values())
    for pk in (root.pk, others.pk, 10**17, "x", "٣", ""):
        assert client.post(PAGE, {"member": pk, "role": "admin"}).status_code == 404
        assert client.post(PAGE, {"remove": pk}).status_code == 404
    for query in ("?tenant=theirs", "?tenant=nothing"):
        assert client.get(PAGE + query).status_code == 404
        assert client.post(PAGE + query, {"name": "theirs-staff", "role": "admin"}).status_code == 404
    assert client.post(PAGE, {"member": root.pk, "role": "owner"}).status_code == 404
    assert list(Membership.objects.order_by("pk").values()) == before
    assert "theirs" not in client.get(PAGE).text


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST])
def test_only_admins_see_the_page(side, role):
    other = member(side.tenant, "ana", role)
    client = Client()
    client.force_login(other.user)
    assert client.get(PAGE).status_code == 403
    assert client.post(PAGE, {"member": other.pk, "role": "admin"}).status_code == 403
    assert "Members" not in client.get("/alerts/").text
    assert roles(side.tenant)["ana"] == role


def test_a_superuser_manages_every_tenant(side, admin_client):
    theirs = Side("theirs")
    User.objects.create_user("ana")
    page = admin_client.get(f"{PAGE}?tenant=theirs").text
    assert "Members of <bdi>theirs</bdi>" in page
    assert 'href="?tenant=ours"' in page
    admin_client.post(f"{PAGE}?tenant=theirs", {"name": "ana", "role": "analyst"})
    assert roles(theirs.tenant) == {"theirs-staff": "analyst", "ana": "analyst"}


def test_without_a_login_there_is_no_page():
    assert Client().get(PAGE).headers["Location"] == "/login/?next=/members/"
