"""Real processes killed at chosen instants, and what their folder, journal and server show then.

Two methods, because one is blind where the other sees. `kill -9` finds a wrong order of steps but
never a missing fsync: the kernel keeps what a dead process wrote. So the fsyncs are recorded in
their order, and played back through a model of a disk that loses what was not synced. Both are
tested in turn by `mutants`: the package with one safeguard taken out, each of which must be caught.
"""
