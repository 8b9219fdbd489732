"""Staff pages of devices and of both kinds of keys."""

from devices.admin import device_keys, devices, provisioning_keys  # noqa: F401  registers them
