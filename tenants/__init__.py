"""Tenants, their modules and members, and the wall between them."""
