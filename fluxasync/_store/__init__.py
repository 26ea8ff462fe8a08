"""Storage: files, sinks, metadata, ledgers, journal, audit."""
