"""Where sessions are stored. The role of the pages may not look at them: whoever has a session's key is its user."""

from typing import Any

from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.db import InterfaceError, InternalError, OperationalError

from tenants.isolation import bypass_isolation


class SessionStore(DatabaseSessionStore):
    """Django's, which a page may use too, as logging in and out does; an asynchronous view may not.

    Its name is part of the key that sessions are signed with: it must stay the same as Django's.
    """

    def load(self) -> dict[str, Any]:
        with bypass_isolation():
            return super().load()

    def exists(self, session_key: str) -> bool:
        with bypass_isolation():
            return super().exists(session_key)

    def save(self, must_create: bool = False) -> None:
        """Raises UpdateError if the session has ended; Django does so for a database that fails, too."""
        try:
            with bypass_isolation():
                super().save(must_create)
        except UpdateError as error:
            if isinstance(error.__context__, OperationalError | InterfaceError | InternalError):
                raise error.__context__ from None
            raise

    def delete(self, session_key: str | None = None) -> None:
        with bypass_isolation():
            super().delete(session_key)
