"""The bill of a folder: what its journal says was charged, beside what the provider says."""
