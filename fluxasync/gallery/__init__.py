"""A page of a run: `gallery.html` in its folder, or served while images arrive.

A gallery reads the journal, the lists and the images, and writes only its page, its thumbnails and,
where a folder is named for them, copies of the images. A name in `__init__.pyi` is imported at its
first use, so a process that makes thumbnails imports nothing else.
"""

from .._core.lazy_exports import lazy_exports as _lazy_exports

__getattr__, __dir__ = _lazy_exports(globals())
