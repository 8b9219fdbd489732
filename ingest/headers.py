"""What a request's headers say about the batch, besides the key and the encodings."""

from common.headers import Headers


def prefers_lenient(headers: Headers) -> bool:
    """Whether the device asks for `handling=lenient` (RFC 7240, section 4.4)."""
    header = headers.get("HTTP_PREFER")
    if header is None:
        return False
    preferences = (preference.partition(";")[0].partition("=") for preference in header.lower().split(","))
    handling = [value.strip(' "') for name, _, value in preferences if name.strip() == "handling"]
    return handling[:1] == ["lenient"]  # of several, the first counts (section 2)
