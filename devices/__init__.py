"""Who may send: tenants, their modules and members, devices and device keys."""
