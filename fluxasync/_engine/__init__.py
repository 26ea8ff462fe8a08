"""One image within the limits of an account."""
