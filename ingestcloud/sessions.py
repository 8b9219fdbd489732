"""The session middleware: use prolongs a session, and a database failure does not count as the end of a session."""

from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from common.sessions import note_use
from tenants.isolation import DATABASE_FAILURES, unavailable


class SessionMiddleware(DjangoSessionMiddleware):
    """Django's, but reading a session for a page prolongs it.

    If it can't be written, the answer is a 503; if it was deleted in the meantime, by a logout elsewhere, the answer
    redirects to the login.
    """

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session = request.session
        try:
            if session.accessed and not session.is_empty():
                note_use(session)
            return super().process_response(request, response)
        except SessionInterrupted:
            response = redirect(settings.LOGIN_URL)
            response.delete_cookie(settings.SESSION_COOKIE_NAME, samesite=settings.SESSION_COOKIE_SAMESITE)
            return response
        except DATABASE_FAILURES as error:
            return unavailable(error)
