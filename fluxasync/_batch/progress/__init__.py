"""Shows a run while it lasts."""
