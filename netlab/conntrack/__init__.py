"""A model of conntrack's TCP tracking, computed from packets alone. Pure."""
