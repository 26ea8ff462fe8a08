"""One run on several machines, over Ray: a ledger that alone records, and workers that make images.

Only `actors` and `datasets` import ray. The other modules take the calls between actors as
functions, so they are tested without a cluster.
"""
