"""Reads a folder between runs, and records decisions; users import `fluxasync.audit`."""
