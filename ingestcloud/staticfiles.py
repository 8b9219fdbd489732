from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Hashed names inside JavaScript modules too, so that a browser never mixes modules of two releases."""

    support_js_module_import_aggregation = True
