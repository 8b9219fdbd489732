"""The OpenAPI description at `/api/schema`: what programs send and get.

Nothing in these modules is called by name: drf-spectacular finds an extension because the subclass exists, and what
`extend_schema_view` says about a view is kept in the view's class.
"""

from ingestcloud.openapi import devices, people

__all__ = ["devices", "people"]
