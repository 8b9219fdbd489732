"""Whether an address is in a network, in the database: `source_ip__within="10.0.0.0/8"`."""

import ipaddress
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import GenericIPAddressField, Lookup


def network(text: str) -> str:
    """An address or a network in its usual form; bits of the host are dropped. Raises ValueError."""
    if "%" in text:
        raise ValueError("An address can't have a zone here.")
    return str(ipaddress.ip_network(text.strip(), strict=False))


@GenericIPAddressField.register_lookup
class Within(Lookup):
    """True for addresses in the network, which is a string."""

    lookup_name = "within"

    def get_prep_lookup(self) -> str:
        return network(self.rhs)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} <<= %s::inet", [*parameters, self.rhs]

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        column, parameters = self.process_lhs(compiler, connection)
        return f"ingestcloud_within({column}, %s)", [*parameters, self.rhs]


@GenericIPAddressField.register_lookup
class Matches(Within):
    """For a search box: as `within`, but a text that is not an address or a network matches nothing."""

    lookup_name = "matches"

    def get_prep_lookup(self) -> str:
        try:
            return super().get_prep_lookup()
        except ValueError:
            return ""

    def process_lhs(self, compiler: Any, connection: Any, lhs: Any = None) -> Any:
        if not self.rhs:
            raise EmptyResultSet
        return super().process_lhs(compiler, connection, lhs)


def add_function(connection: Any, **kwargs: object) -> None:
    """Receiver of `connection_created`: SQLite has no type for addresses."""
    if connection.vendor == "sqlite":
        connection.connection.create_function("ingestcloud_within", 2, _is_within, deterministic=True)


def _is_within(address: str | None, text: str) -> bool | None:
    return None if address is None else ipaddress.ip_address(address) in ipaddress.ip_network(text)
