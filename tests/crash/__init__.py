"""Kills real processes at chosen instants and checks their folder, journal and server.

`kill -9` finds a wrong order of steps but never a missing fsync, because the kernel keeps what a
dead process wrote. Therefore the fsyncs of a run are recorded in order, and replayed through a
model of a disk that loses unsynced data. `mutants` tests both methods: it removes one safeguard of
the package at a time, and each removal must be detected.
"""
