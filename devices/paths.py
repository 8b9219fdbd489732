"""The address at which devices register. Settings need it, before any model can be loaded."""

REGISTER_PATH = "/api/v1/devices/register"
