"""The session store. The role of the pages may not read sessions: anyone with a session's key can act as its user."""

from typing import Any

from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore

from tenants.isolation import DATABASE_FAILURES, bypass_isolation


class SessionStore(DatabaseSessionStore):
    """Django's, but pages can use it too, as logging in and out does. Asynchronous views can't.

    The class name is part of the key that signs sessions, so it must stay the same as Django's.
    """

    def load(self) -> dict[str, Any]:
        with bypass_isolation():
            return super().load()

    def exists(self, session_key: str) -> bool:
        with bypass_isolation():
            return super().exists(session_key)

    def save(self, must_create: bool = False) -> None:
        """Raises UpdateError only if the session has ended; Django raises it for a failing database too."""
        try:
            with bypass_isolation():
                super().save(must_create)
        except UpdateError as error:
            if isinstance(error.__context__, DATABASE_FAILURES):
                raise error.__context__ from None
            raise

    def delete(self, session_key: str | None = None) -> None:
        with bypass_isolation():
            super().delete(session_key)
