"""Many images over one engine."""
