"""A run's images as shards, tables and folders that other tools read."""
