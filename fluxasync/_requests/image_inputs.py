"""Image inputs: a path, bytes or a URL → base64 or a URL, off the event loop.

`resolve` reads an input to check it and to compute its digest (part of the request's key) and its
size (part of some prices). `encode_image_inputs` reads it again to send it, and refuses a file that
changed in between. Bytes are not kept: a million rows may name a million photographs. A URL stays a
URL, because the provider fetches it. Inputs are checked less strictly than results: phones append
data to a JPEG, and the provider accepts that.

A file that a list names is opened only below allowed folders. Links are resolved first, and the
result is opened without following links, so a link planted between check and open is refused.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TypeGuard, TypeVar

from attrs import evolve

from .._core.errors import ConfigError, cut
from .._core.images import NotAnImage, measure, sniff
from .._core.models import ImageInput, ImageRequest

#: "up to 20 MB or 20 MP" and at least 64 pixels a side, BFL docs; mega read the generous way, so
#: that only what is certainly too large is refused here
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 20 * 2**20
MIN_SIDE = 64

#: one folder or several
Folders = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

#: folders that a file must be in
_Within = tuple[str, ...] | None

#: opens a folder to look further inside; Linux needs no permission to list it for that
_INSIDE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC

_T = TypeVar("_T")

#: an image as the API takes it; of a list, each of them
WireImage = str | list[str]


async def resolve(
    request: ImageRequest, *, base: Path | None = None, executor: Executor | None = None
) -> ImageRequest:
    """Return the request with every image input judged and its digest set.

    Relative paths are taken from the folder `base`. An input whose digest is known is left as it
    is. Raises ConfigError, naming path and limit, for a file that is missing, no JPEG, PNG or
    WebP, over 20 MB or 20 MP, or below 64 pixels a side. Reads files in `executor`, only if any.
    """
    if all(_is_settled(image) for _, image in named_inputs(request)):
        return request
    return await _off_loop(executor, lambda: resolve_now(request, base=base))


def resolve_now(request: ImageRequest, *, base: Path | None = None) -> ImageRequest:
    """Do what `resolve` does in the calling thread, which must not be the event loop's."""
    return with_inputs(
        request,
        lambda name, image: image if _is_settled(image) else _settled(name, image, base),
    )


def allowed_folders(given: Folders) -> tuple[str, ...]:
    """Return the folders with links resolved. Raises ConfigError for one that is no folder."""
    many = [given] if isinstance(given, str | os.PathLike) else given
    folders = [os.path.realpath(folder) for folder in many]
    for folder in folders:
        if not os.path.isdir(folder):
            raise ConfigError.about("allow_files", f"{cut(str(folder))} is no folder")
    return tuple(folders)


def open_within(path: str | os.PathLike[str], folders: Iterable[str]) -> int:
    """Open a file that is below one of the folders, and return its descriptor.

    Raises ConfigError for a path that is not, and OSError.
    """
    real = os.path.realpath(path)
    for folder in folders:
        if Path(real).is_relative_to(folder):
            return open_inside(folder, Path(real).relative_to(folder).parts)
    raise ConfigError(
        "outside the list's folder; move the file into it, or allow its folder: "
        "--allow-files DIR (in Python: allow_files)"
    )


def open_inside(folder: str, parts: tuple[str, ...]) -> int:
    """Open what these names lead to inside a folder, following no links. Raises OSError."""
    handle = os.open(folder, _INSIDE)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _INSIDE | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(parts[-1] if parts else ".", flags, dir_fd=handle)
    finally:
        os.close(handle)


async def encode_image_inputs(
    request: ImageRequest, *, executor: Executor | None = None
) -> dict[str, WireImage]:
    """Return each image input by wire name: base64 text, or its URL; of a list, a list of them.

    All files are read and encoded in one hop to `executor`. Raises ConfigError for a file that
    cannot be read or is no longer the one whose digest the request carries.
    """
    if all(image.url is not None for _, image in named_inputs(request)):
        return _wire_forms(request)
    return await _off_loop(executor, lambda: _wire_forms(request))


def _wire_forms(request: ImageRequest) -> dict[str, WireImage]:
    forms: dict[str, WireImage] = {}
    if request.image_prompt is not None:
        forms["image_prompt"] = _wire_form("image_prompt", request.image_prompt)
    for name, value in request.parameters.items():
        if isinstance(value, ImageInput):
            forms[name] = _wire_form(name, value)
        elif _is_list(value):
            forms[name] = [
                _wire_form(f"{name}[{place}]", image) for place, image in enumerate(value)
            ]
    return forms


async def _off_loop(executor: Executor | None, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def named_inputs(request: ImageRequest) -> Iterator[tuple[str, ImageInput]]:
    """Yield each image input with its wire name; those of a list as images[0] and so on."""
    if request.image_prompt is not None:
        yield "image_prompt", request.image_prompt
    for name, value in request.parameters.items():
        if isinstance(value, ImageInput):
            yield name, value
        elif _is_list(value):
            yield from ((f"{name}[{place}]", image) for place, image in enumerate(value))


def with_inputs(
    request: ImageRequest, change: Callable[[str, ImageInput], ImageInput]
) -> ImageRequest:
    """Return the request with `change(name, image)` in place of each image input."""
    changed = {name: change(name, image) for name, image in named_inputs(request)}
    if not changed:
        return request
    parameters = {
        name: tuple(changed[f"{name}[{place}]"] for place in range(len(value)))
        if _is_list(value)
        else changed.get(name, value)
        for name, value in request.parameters.items()
    }
    return evolve(request, image_prompt=changed.get("image_prompt"), parameters=parameters)


def _is_list(value: object) -> TypeGuard[Sequence[ImageInput]]:
    """Return whether a parameter is a list of images: the check of a request makes it a tuple."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, ImageInput) for each in value)
    )


def _is_settled(image: ImageInput) -> bool:
    return image.url is not None or (image.path is not None and image.sha256 is not None)


def _settled(name: str, image: ImageInput, base: Path | None) -> ImageInput:
    if image.data is not None:
        sha256, pixels = _read_off(image.data, what=name)
        return evolve(image, sha256=sha256, pixels=pixels)
    path = _path(image)
    path = path if base is None else base / path
    sha256, pixels = _known(name, path, image.within)
    return evolve(image, path=path, sha256=sha256, pixels=pixels)


def _path(image: ImageInput) -> Path:
    if image.path is None:
        raise ConfigError("an image input has one of a path, bytes and a URL")
    return image.path


def _known(name: str, path: Path, within: _Within) -> tuple[str, int | None]:
    with _opened(name, path, within) as file:
        found = os.fstat(file.fileno())
    # The same photograph in a thousand rows is read once, as long as it stays the same.
    stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return _known_of(name, path, within, stamp)


@lru_cache(maxsize=1024)
def _known_of(
    name: str, path: Path, within: _Within, stamp: tuple[int, ...]
) -> tuple[str, int | None]:
    return _read_off(_read(name, path, within), what=f"{name}={path}")


def _read_off(content: bytes, *, what: str) -> tuple[str, int | None]:
    """Return digest and pixels of an image that can be given to a model."""
    pixels = _judge(content, what=what)
    return hashlib.sha256(content).hexdigest(), pixels


def _wire_form(name: str, image: ImageInput) -> str:
    if image.url is not None:
        return image.url
    content = image.data
    if content is None:
        content = _read(name, _path(image), image.within)
        if image.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise ConfigError(
                f"{name}={cut(str(image.path))}: has changed since it was checked; start again"
            )
    return base64.b64encode(content).decode("ascii")


def _read(name: str, path: Path, within: _Within) -> bytes:
    with _opened(name, path, within) as file:
        found = os.fstat(file.fileno())
        if found.st_size > MAX_BYTES:
            raise _too_large(found.st_size)
        return file.read(MAX_BYTES + 1)


@contextmanager
def _opened(name: str, path: Path, within: _Within) -> Iterator[IO[bytes]]:
    def opener(given: str, flags: int) -> int:
        if within is not None:
            return open_within(given, within)
        return os.open(given, flags | os.O_NONBLOCK)  # not waiting for the writer of a pipe

    with _readable(name, path), open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigError("not a file")
        yield file


@contextmanager
def _readable(name: str, path: Path) -> Iterator[None]:
    """Raise the operating system's errors as ConfigErrors that name the path."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{name}={cut(str(path))}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{name}={cut(str(path))}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{name}={cut(str(path))}: {error}") from None
    except ValueError as error:  # a NUL character
        raise ConfigError(f"{name}={str(path)[:80]!r}: not a path") from error


def _judge(content: bytes, *, what: str) -> int | None:
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{what}: {_too_large(len(content))}")
    try:
        sniff(content[:512])  # an SVG has its name after a prolog
    except NotAnImage as error:
        raise ConfigError(f"{what}: {error.as_input()}") from None
    try:
        size = measure(content)
    except NotAnImage:
        return None  # the right kind, oddly built: the provider's decoder is the judge
    if min(size.width, size.height) < MIN_SIDE:
        raise ConfigError(
            f"{what}: {size.width}×{size.height} pixels; each side needs {MIN_SIDE} or more"
        )
    if size.width * size.height > MAX_PIXELS:
        raise ConfigError(f"{what}: {size.width}×{size.height} pixels; 20 MP at most")
    return size.width * size.height


def _too_large(size: int) -> ConfigError:
    return ConfigError(f"{size / 2**20:.1f} MB; an image input has 20 MB at most")
