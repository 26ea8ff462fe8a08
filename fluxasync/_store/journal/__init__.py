"""The durable ledger of a folder: one SQLite file with one writer."""
