"""Writes the settings that `make run` generates into `.env`, once. Without Django, whose settings need that file."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

CHECKOUT = Path(__file__).resolve().parent.parent
CONTENT = """\
# Written by `make run` for this checkout; environment variables take precedence. docs/operations.md explains each.
SECRET_KEY={secret_key}
ALLOWED_HOSTS=localhost,127.0.0.1,[::1]
HTTPS=false
# Absolute, so that manage.py can be called from any folder; change it if you move the checkout.
DATABASE_URL=sqlite:///{database}
# The demo's key and password, printed at every start. The database has only their hashes.
DEMO_DEVICE_KEY=dvc_{device_key}
DEMO_ADMIN_PASSWORD={password}
"""


def write_env(folder: Path) -> bool:
    """Write `.env` into `folder`, readable only by its owner. Returns False, and writes nothing, if there is one."""
    content = CONTENT.format(
        secret_key=secrets.token_urlsafe(50),
        database=quote(str(folder / "ingestcloud.sqlite3")),
        device_key=secrets.token_urlsafe(32),
        password=secrets.token_urlsafe(12),
    )
    try:
        descriptor = os.open(folder / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    return True


if __name__ == "__main__" and write_env(CHECKOUT):
    print("Wrote .env with a secret key and the demo's login.")
