"""What is kept: files, sinks, metadata, ledgers, journal, audit."""
