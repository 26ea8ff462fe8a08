"""Batch image generation with Flux models, on asyncio.

`__init__.pyi` is the list of the public names. A name is imported at its first use, so
`import fluxasync` and `fluxasync --help` do not wait for aiohttp.
"""

from ._core.lazy_exports import lazy_exports as _lazy_exports
from ._core.version import __version__ as __version__

__getattr__, __dir__ = _lazy_exports(globals())
