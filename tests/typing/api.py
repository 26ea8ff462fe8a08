"""What type checkers say about the public surface; read by mypy, never run.

A change that breaks a line here breaks a user's type check: it needs a changelog line.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import assert_never, assert_type

from attrs import evolve

import fluxasync
from fluxasync import (
    BFL,
    AccountReader,
    AccountTask,
    Balance,
    Batch,
    Bill,
    BillLine,
    Budget,
    Cause,
    Credentials,
    DownloadError,
    Estimate,
    ExportResult,
    Failed,
    FluxError,
    FluxSession,
    FolderSink,
    ImageRequest,
    InDoubt,
    Job,
    JobError,
    JournalCounts,
    Limits,
    MemoryLedger,
    MemorySink,
    Moderated,
    ObjectSink,
    Outcome,
    Outcomes,
    Pending,
    Plan,
    Polling,
    Prompts,
    Provider,
    Ready,
    Reconciliation,
    Retry,
    RunExport,
    RunResult,
    Saved,
    Summary,
    TaskList,
    Timeouts,
    TransportError,
    UsageEntry,
    UsageLog,
)
from fluxasync.events import Event, EventsDropped, Settled
from fluxasync.extend import Ledger, Observer, Sink, Stored


async def kept(saved: Saved) -> None:
    assert_type(saved.place, str)


async def helpers() -> None:
    saved = await fluxasync.generate("a red fox", model="flux-pro-1.1", seed=7, out="fox.png")
    assert_type(saved, Saved)
    assert_type(await fluxasync.generate("x", width=512, input_image=Path("a.png")), Saved)
    await fluxasync.generate("x", model="a-new-model", output_format=str(saved.seed))
    await fluxasync.generate("x", widht=512)  # type: ignore[call-arg]
    await fluxasync.generate("x", seed="seven")  # type: ignore[arg-type]
    assert_type(await fluxasync.run("prompts.jsonl", out="images/"), RunResult)
    assert_type(await fluxasync.run(["a red fox"], out=Path("images")), RunResult)
    assert_type(await fluxasync.run("prompts.jsonl", out="images/", retry="failed"), RunResult)
    await fluxasync.run(["a fox"], out="images", on_saved=kept, embed=True)
    await fluxasync.run(["a fox"], out="images", on_saved=print)
    result = fluxasync.run_sync("prompts.jsonl", out="images/", simulate=True)
    assert_type(result, RunResult)
    assert_type(result.summary, Summary)
    assert_type(result.saved, Outcomes[Saved])
    assert_type(result.failed[0], Failed)
    assert_type([each.error for each in result.in_doubt], list[TransportError])
    assert_type(len(result.outcomes), int)
    assert_type(fluxasync.run_sync(fluxasync.generate("a red fox", simulate=True)), Saved)


async def reconciling() -> None:
    async with FluxSession() as flux:
        assert_type(await fluxasync.reconcile(flux, "images/"), Reconciliation)


async def billing() -> None:
    async with FluxSession() as flux:
        assert_type(await fluxasync.bill(flux, "images/", settle=True), Bill)
    assert_type(await fluxasync.export("images/", "parquet", shard="1GB"), ExportResult)
    assert_type(await fluxasync.export("images/", picked=True), ExportResult)
    bill = await fluxasync.bill(None, "images/", datetime.now(UTC))
    assert_type(bill.lines, tuple[BillLine, ...])
    assert_type(bill.causes, tuple[Cause, ...])
    assert_type(bill.difference, Decimal | None)


async def exporting() -> None:
    async with FluxSession() as flux, Batch(flux, ["a red fox"], out="images/") as batch:
        async with batch.exporting("parquet", out=Path("shards"), shard="1GB") as shards:
            await batch.run()
        assert_type(shards, RunExport)
        assert_type(shards.result, ExportResult | None)
        assert_type(shards.error, FluxError | None)


async def events() -> None:
    async with FluxSession() as flux, Batch(flux, ["a red fox"], on_event=print) as batch:
        async for event in batch.events(buffer=100):
            assert_type(event, Event | EventsDropped)
            match event:
                case Settled(outcome=outcome):
                    assert_type(outcome, Outcome)
                case EventsDropped(count=count):
                    assert_type(count, int)


async def one_image_in_steps() -> None:
    async with FluxSession() as flux:
        assert_type(flux, FluxSession)
        job = await flux.submit(ImageRequest(prompt="a red fox", width=1024, height=768))
        assert_type(job, Job)
        assert_type(await flux.poll(job), Pending | Ready)
        ready = await flux.watch(job)
        assert_type(ready, Ready)
        assert_type(await flux.download(ready, to="fox.png"), Saved)
        assert_type(await flux.collect(job), Saved)
        assert_type(Job.from_dict(job.to_dict()), Job)
        assert_type(job.charge, Decimal | None)
        assert_type(await flux.generate("a red fox"), Saved)
        assert_type(await flux.generate(ImageRequest(prompt="x"), to=Path("x.png")), Saved)
        assert_type(await flux.generate("a red fox", model="flux-dev", seed=7, priority=1), Saved)
        assert_type(flux.unclaimed, tuple[Job, ...])


async def account() -> None:
    async with FluxSession(api_key=Credentials(api_key="key", access_token="token")) as flux:
        assert_type(flux.account, AccountReader)
        assert_type(await flux.account.balance(), Balance)
        listed = await flux.account.tasks(since=datetime.now(UTC), model="flux-dev")
        assert_type(listed, TaskList)
        assert_type(listed.tasks, tuple[AccountTask, ...])
        assert_type(listed.tasks[0].cost, Decimal | None)
        usage = await flux.account.usage(since=datetime.now(UTC))
        assert_type(usage, UsageLog)
        assert_type(usage.entries[0], UsageEntry)


async def policies() -> None:
    FluxSession(
        BFL,
        api_key="key",
        base_url="http://127.0.0.1:8000",
        limits=Limits(in_flight=12, rate=2.0),
        retry=Retry(patience=60),
        polling=Polling(lag=0.1),
        timeouts=Timeouts(job=300),
        budget=Budget(max_cost=Decimal(5)),
        proxy="http://proxy.example:3128",
        ssl=ssl.create_default_context(),
    )
    Provider(name="g", base_url="http://gateway:8787", allow_private_network=True)
    async with FluxSession("bfl", limits=24, polling=0.05, budget="5.00") as flux:
        assert_type(flux.limits, Limits)
        flux.limits = evolve(flux.limits, in_flight=12)


async def many_images(flux: FluxSession) -> None:
    async with Batch(flux, "prompts.jsonl", out="images/") as batch:
        assert_type(batch, Batch)
        async for outcome in batch:
            assert_type(outcome, Saved | Failed | InDoubt)
            assert_type(outcome.index, int)
            match outcome:
                case Saved(stored=stored):
                    assert_type(stored, Stored)
                    assert_type(outcome.path, Path | None)
                    assert_type(outcome.data, bytes | None)
                    assert_type(outcome.cost, Decimal | None)
                    assert_type(outcome.prompt_used, str | None)
                case Failed(error=error):
                    assert_type(error, FluxError)
                    assert_type(outcome.cause, str)
                case InDoubt(error=error):
                    assert_type(error, TransportError)
                case _:
                    assert_never(outcome)
        batch.stop(grace=10.0)
        batch.stop()
    assert_type(batch.summary, Summary)
    assert_type(batch.plan, Plan | None)
    assert_type(batch.estimate, Estimate | None)
    assert_type(batch.recovered, JournalCounts | None)


async def sources(flux: FluxSession) -> None:
    async def endless() -> AsyncIterator[str]:
        yield "a red fox"

    Batch(flux, Prompts(Path("prompts.txt"), n=4), out=Path("images"), name="{index:06}.{ext}")
    Batch(flux, ["a red fox", "a lighthouse"], out=MemorySink(), ordered=True)
    Batch(flux, ({"prompt": p, "seed": 7} for p in ("a", "b")), out=MemorySink())
    Batch(flux, [ImageRequest(prompt="a red fox")], out=FolderSink("images", embed=True))
    Batch(flux, Prompts("p.csv", seeds=range(4), models=["flux-dev"], grid={"guidance": [2, 3.5]}))
    Batch(flux, Prompts(Path("p.parquet"), sample=100, columns={"prompt": "caption", "width": "w"}))
    Batch(flux, "prompts.txt", out="images", retry="failed,moderated", finished="skip")
    Batch(flux, "prompts.txt", out="images", retry=["expired", "lost"])
    Batch(flux, "prompts.txt", out="s3://bucket/run", state=Path("run"))
    Batch(flux, "prompts.txt", out=ObjectSink("gs://b/run", options={"a": "b"}), state="run")
    Batch(flux, Prompts("captions/", wildcards=True, sample=10, sample_seed=1))
    Batch(flux, Prompts("p.csv", allow_files="photos"))
    Batch(flux, Prompts("p.csv", allow_files=["photos", Path("more")]))
    Batch(flux, endless(), out=MemorySink(), ledger=MemoryLedger())


def errors(error: Exception) -> None:
    if isinstance(error, Moderated):
        assert_type(error.reasons, tuple[str, ...])
    if isinstance(error, JobError | DownloadError):
        assert_type(error.job, Job)
    if isinstance(error, TransportError):
        assert_type(error.sent, bool)
    if isinstance(error, FluxError):
        assert_type(error.cause, str)


class Shelf:
    """A user's own sink."""

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        raise NotImplementedError


def seams() -> None:
    own: Sink = Shelf()
    memory: Sink = MemorySink()
    folder: Sink = FolderSink("images")
    ledger: Ledger = MemoryLedger()
    observer: Observer = print
    del own, memory, folder, ledger, observer


def catalogue() -> None:
    assert_type(fluxasync.models(), tuple[fluxasync.Model, ...])
