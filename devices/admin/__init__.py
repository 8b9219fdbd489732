"""Staff pages for devices and for both types of keys."""

from devices.admin import device_keys, devices, provisioning_keys  # noqa: F401  registers them
