"""The middleware of sessions: use prolongs them, and a database that is away is no fault."""

from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse

from common.sessions import note_use
from tenants.isolation import unavailable


class SessionMiddleware(DjangoSessionMiddleware):
    """Django's, but a session that was read for a page is prolonged, and what can't be written is a 503."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session = request.session
        try:
            if session.accessed and not session.is_empty():
                note_use(session)
            return super().process_response(request, response)
        except (OperationalError, InterfaceError, InternalError) as error:
            return unavailable(error)
