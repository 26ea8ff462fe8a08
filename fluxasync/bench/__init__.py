"""Load tests of a model on an account: throughput, latency, cost and the bottleneck.

For example::

    from fluxasync import bench

    config = bench.BenchConfig(out="monday", load=(1, 12, 24), max_cost="3.00")
    report = await bench.run(config)
    print(report.verdict)
    print(bench.compare(bench.load("monday"), report))

`run` puts load on one session and writes a folder, `load` reads one, `compare` compares two.
A name in `__init__.pyi` is imported at its first use, so reading a report does not import aiohttp.
"""

from .._core.lazy_exports import lazy_exports as _lazy_exports

__getattr__, __dir__ = _lazy_exports(globals())
