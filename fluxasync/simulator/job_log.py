"""The jobs in a file, so that a later simulator continues with them.

One JSON line for each accepted job and each delivered image, written before the answer is sent: a
kill loses no job that a client knows. Times are seconds of the epoch. The file may be truncated or
come from elsewhere: invalid lines are ignored.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from attrs import asdict

from .charges import Charge
from .dialects import DialectName
from .images import PictureSpec
from .jobs import Job
from .models import MODELS

#: limits of a line in bytes and of a side in pixels; the simulator writes no larger ones
_LONGEST, _LARGEST = 2**21, 2**13
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_INVALID = (KeyError, TypeError, ValueError, ArithmeticError, RecursionError)


class JobLog:
    """Appends to the file at `path`, created with the first job; None: nothing is kept.

    Raises OSError if `path` is not a regular file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: int | None = None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def earlier_jobs(self) -> tuple[list[Job], int]:
        """Return the jobs of earlier simulators, their times in seconds of the epoch, and the port
        of the last one's regional host (0: unknown)."""
        rows = list(self._rows())
        delivered = {str(row["delivered"]) for row in rows if "delivered" in row}
        jobs: dict[str, Job] = {}
        taken: set[object] = set()
        for row in rows:
            try:
                job = _job(row)
            except _INVALID:
                continue
            if not taken & {job.id, job.path, job.number}:
                taken |= {job.id, job.path, job.number}
                job.charge.delivered = job.id in delivered
                jobs[job.id] = job
        ports = [row.get("port") for row in rows if row.get("id") in jobs]
        port = ports[-1] if ports else 0
        return list(jobs.values()), port if type(port) is int and 0 < port < 2**16 else 0

    def accepted(self, job: Job, *, epoch: float, port: int) -> None:
        """Record a job. `epoch` is the wall clock at the server's 0, `port` the regional host's."""
        if self._path is not None:
            self._write(_row(job, epoch) | {"port": port})

    def delivered(self, job: Job) -> None:
        """Record that a job's image was delivered completely."""
        if self._path is not None:
            self._write({"delivered": job.id})

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is None:
            assert self._path is not None  # noqa: S101 — the callers checked; for the type checker
            self._file = _opened(self._path, os.O_CREAT)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # the last simulator was killed while writing
        os.write(self._file, json.dumps(row).encode() + b"\n")

    def _rows(self) -> Iterator[dict[str, Any]]:
        if self._path is None or not os.path.lexists(self._path):
            return
        with open(_opened(self._path), "rb") as file:
            while line := file.readline(_LONGEST):
                try:
                    row = json.loads(line)
                except _INVALID:
                    continue
                if isinstance(row, dict):
                    yield row


def _opened(path: Path, more: int = 0) -> int:
    file = os.open(path, _FLAGS | more, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _row(job: Job, epoch: float) -> dict[str, Any]:
    charge = {
        name: getattr(job.charge, name) for name in ("prompt", "seed", "body_digest", "key_digest")
    }
    return {
        "id": job.id,
        "number": job.number,
        "dialect": job.dialect,
        "region": job.region,
        "model": job.model.name,
        "prompt": job.result_prompt,
        "picture": asdict(job.picture),
        "charge": charge | {"price_usd": str(job.charge.price_usd)},
        "started_at": epoch + job.started_at,
        "ends_at": epoch + job.ends_at,
        "fate": job.final_status,
        "path": job.path,
    }


def _job(row: dict[str, Any]) -> Job:
    """Return the job of a row. Raises an error of `_INVALID` for an invalid row."""
    job_id, dialect, model = str(row["id"]), row["dialect"], MODELS[row["model"]]
    if dialect not in get_args(DialectName):
        raise ValueError(dialect)
    started_at, charge = _instant(row["started_at"]), row["charge"]
    return Job(
        number=int(row["number"]),
        id=job_id,
        dialect=dialect,
        region=None if row["region"] is None else str(row["region"]),
        model=model,
        result_prompt=str(row["prompt"]),
        picture=_picture(row["picture"]),
        charge=Charge(
            job_id=job_id,
            dialect=dialect,
            model=model.name,
            prompt=str(charge["prompt"]),
            seed=charge["seed"],
            body_digest=charge["body_digest"],
            key_digest=charge["key_digest"],
            price_usd=Decimal(charge["price_usd"]),
            at=started_at,
        ),
        started_at=started_at,
        ends_at=_instant(row["ends_at"]),
        final_status=str(row["fate"]),
        path=str(row["path"]),
    )


def _picture(row: dict[str, Any]) -> PictureSpec:
    width, height = int(row["width"]), int(row["height"])
    if not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise ValueError(f"{width} x {height} pixels")
    if row["format"] not in ("jpeg", "png", "webp"):
        raise ValueError(row["format"])
    return PictureSpec(
        prompt=str(row["prompt"]),
        seed=int(row["seed"]),
        width=width,
        height=height,
        format=row["format"],
        variant=str(row.get("variant", "")),
    )


def _instant(value: Any) -> float:
    seconds = float(value)
    if not isfinite(seconds):
        raise ValueError(value)
    return seconds
