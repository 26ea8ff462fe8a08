"""The checks of `doctor` that ask this machine and the output: versions, limits, disk, bucket."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .._core.errors import JournalError
from .._core.extras import install_command
from .._core.text import counted
from .._core.version import __version__
from .._store.files import HOME
from .._store.journal.lock import holder
from .._store.output_probe import FolderProbe, probe_bucket, probe_folder
from .._store.output_root import OutputRoot
from .exit_codes import DISK, LOCKED
from .findings import CheckResult, bounded, in_own_thread
from .options import RunOptions, read_storage_options
from .rendering import active_line

#: packages whose versions are named, by the extra that installs them; "" = always there
_PACKAGES = {
    "aiohttp": "", "attrs": "", "cyclopts": "", "rich": "", "uvloop": "speed", "pillow": "image",
    "pyarrow": "data", "openpyxl": "data", "obstore": "store", "matplotlib": "bench", "ray": "ray",
}  # fmt: skip
#: open files besides the connections: the journal, the lists, the images being written
_OTHER_FILES = 64
#: seconds for a megabyte from which on the disk is called slow
_SLOW_DISK = 1.0


def version_finding() -> CheckResult:
    """Name the versions that a report of a problem needs."""
    found = {name: _version(name) for name in _PACKAGES}
    there = [f"{name} {number}" for name, number in found.items() if number]
    extras = sorted({_PACKAGES[name] for name, number in found.items() if number is None} - {""})
    missing = f"; without the extras {', '.join(extras)}" if extras else ""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    values = {"fluxasync": __version__, "python": python, "system": system, "packages": found}
    step = f"if one is needed: {install_command(extras[0])}" if extras else ""
    text = f"fluxasync {__version__}, {python}, {system}; {', '.join(there)}{missing}"
    return CheckResult(check="versions", text=text, next=step, values=values)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def limit_finding(slots: int, places: int) -> CheckResult:
    """Compare the connections of a run with the number of files that this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * places + _OTHER_FILES
    values = {"slots": slots, "open_files": None if soft < 0 else soft, "needed_files": needed}
    allowed = "any number of" if soft < 0 else f"{soft:,}"
    text = f"{counted(slots, 'slot')}; {allowed} open files allowed, about {needed:,} needed"
    if 0 <= soft < needed:
        step = f"ulimit -n {needed}" if hard < 0 or needed <= hard else "fewer slots: --in-flight"
        return CheckResult(check="limits", status="warning", text=text, next=step, values=values)
    return CheckResult(check="limits", text=text, values=values)


async def output_findings(
    options: RunOptions, images: int | None, image_bytes: int, *, patience: float
) -> list[CheckResult]:
    """Try the folder or the bucket of a run; `images` of it are still to come, each of about
    `image_bytes` bytes."""
    root = options.root
    if options.out is None:
        text = "no -o was given, so no folder was tried"
        step = "add -o DIR, as for the run"
        return [CheckResult(check="output", status="skipped", text=text, next=step)]
    step = "look whether the disk hangs, or choose another place"
    limits: Any = {"code": DISK, "step": step, "seconds": patience}
    active = await bounded("output", in_own_thread(partial(_holder, root)), **limits)
    found = [active] if isinstance(active, CheckResult) else []
    if not root.url or not root.is_copy:
        folder = root.folder
        tried = await bounded("output", in_own_thread(partial(probe_folder, folder)), **limits)
        if isinstance(tried, CheckResult):
            return [*found, tried]
        needs = 0 if root.url or images is None else images * image_bytes
        found += _folder(folder, tried, images, needs)
    if root.url:
        found.append(await _bucket(options, patience))
    return found


def _holder(root: OutputRoot) -> CheckResult | None:
    """Return the finding for a folder in which a run is active."""
    try:
        found = holder(root.folder / HOME)
    except JournalError as error:
        return CheckResult(
            check="output", status="failed", text=str(error), next="choose another folder",
            code=DISK,
        )  # fmt: skip
    if found is None:
        return None
    return CheckResult(
        check="output", status="failed", text=f"{root.record} has a run, {active_line(found)}",
        next="wait for it, or choose another folder", code=LOCKED, values={"holder": found},
    )  # fmt: skip


def _folder(
    folder: Path, tried: FolderProbe, images: int | None, needs: int
) -> Iterator[CheckResult]:
    made = "" if tried.tried == folder.absolute() else f", to be made in {tried.tried}"
    slow = tried.seconds > _SLOW_DISK
    remarks = {
        "a megabyte takes long to become durable": slow,
        "no hard links": not tried.has_links,
        "no locks, so a second run in the folder is not refused": not tried.has_locks,
    }
    warnings = [remark for remark, applies in remarks.items() if applies]
    values = {
        "place": str(folder), "free_bytes": tried.free, "needed_bytes": needs,
        "free_files": tried.free_files, "seconds": round(tried.seconds, 3),
        "hard_links": tried.has_links, "locks": tried.has_locks,
    }  # fmt: skip
    text = f"{folder} is writable{made}; 1 MB in {1000 * tried.seconds:.0f} ms"
    yield CheckResult(
        check="output", status="warning" if warnings else "ok",
        text="; ".join((text, *warnings)),
        next="a folder on a disk of this machine is faster and safer" if warnings else "",
        values=values,
    )  # fmt: skip
    room = f"{_size(tried.free)} free"
    if needs:
        room += f"; {counted(images or 0, 'image')} need about {_size(needs)}"
    too_many = tried.free_files is not None and tried.free_files < (images or 0)
    if needs > tried.free or too_many:
        what = f"only {tried.free_files:,} files may be created" if too_many else room
        yield CheckResult(
            check="room", status="failed", text=what, code=DISK,
            next="free some space, choose another disk, or make a part of the list: --limit N",
        )  # fmt: skip
    else:
        yield CheckResult(check="room", text=room)


async def _bucket(options: RunOptions, patience: float) -> CheckResult:
    from .._store.objects import Objects

    url = options.root.url

    def probe() -> CheckResult:
        found = probe_bucket(Objects(url, read_storage_options(options.storage_option)))
        took = f"an object in {1000 * found.seconds:.0f} ms"
        text = f"{url} is writable and replaces no object; {took}"
        values = {"place": url, "seconds": round(found.seconds, 3), "left": found.left}
        if found.left:
            return CheckResult(
                check="bucket", status="warning", text=f"{text}; {found.left} stays there",
                next="delete it; the credentials may not, which a run does not need",
                values=values,
            )  # fmt: skip
        return CheckResult(check="bucket", text=text, values=values)

    step = "check endpoint, region and credentials: --storage-option, and the environment"
    return await bounded("bucket", in_own_thread(probe), code=DISK, step=step, seconds=patience)


def _size(amount: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit in ("B", "KB") else f"{amount:.1f} {unit}"
