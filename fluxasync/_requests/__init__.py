"""What a user writes, as a checked, priced and keyed request."""
