"""Hooks of a run: commands without a shell, bounded calls, an end that is told; none ends a run."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import shlex
import signal
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hostile_text import CORPUS
from support.patience import patient

from fluxasync import ConfigError, ImageRequest, Job, Saved, Summary
from fluxasync._batch.hooks import finish as finishing
from fluxasync._batch.hooks import saved_hook as saved_hooks
from fluxasync._batch.hooks.commands import CommandTemplate, run_command, then_hook
from fluxasync._batch.hooks.finish import Finish, summary_row
from fluxasync._batch.hooks.saved_hook import HookError, SavedHook
from fluxasync.events import Settled
from fluxasync.extend import Stored

#: a command that writes its words, as JSON, to the file that its first word names
ECHO = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"


def saved(path: Path | None, prompt: str = "a fox", *, seed: int | None = 7) -> Saved:
    request = ImageRequest(prompt=prompt)
    stored = Stored(path=path, size=1, sha256="0" * 64, format="jpeg", width=8, height=8)
    return Saved(request=request, job=Job(job_id="j", request=request), stored=stored, seed=seed)


# --- the words of a command ---------------------------------------------------------------------


def test_the_fields_of_a_command_are_filled_in() -> None:
    """A path, and the path without its extension, as `cwebp` wants them."""
    template = CommandTemplate.parse("cwebp -q 80 {path} -o {stem}.webp", option="--then")
    words = template.filled(saved(Path("/images/fox one.jpg")))
    assert words == ["cwebp", "-q", "80", "/images/fox one.jpg", "-o", "/images/fox one.webp"]
    script = r"""sh -c "x \"$1\" | y > z" sh {path} --s="a | b" '|' \>"""
    words = CommandTemplate.parse(script, option="--then").filled(saved(Path("/i.jpg")))
    assert words[2:] == ['x "$1" | y > z', "sh", "/i.jpg", "--s=a | b", "|", ">"]
    template = CommandTemplate.parse("x '{folder}/t/{name}' --s={seed} {{}}-{index}", option="-")
    assert template.filled(saved(Path("/i/a.jpg"))) == ["x", "/i/t/a.jpg", "--s=7", "{}-0"]


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@given(name=names, prompt=st.one_of(st.text(), st.sampled_from(CORPUS)))
def test_no_value_becomes_an_option_a_word_or_a_command(name: str, prompt: str) -> None:
    """Whatever names and prompts hold, a command has the words that its user wrote, and a
    field at the start of a word begins with a slash or a digit."""
    template = CommandTemplate.parse(
        "convert {path} {stem}.webp {folder} {seed} --label={prompt} ./{name}", option="--then"
    )
    words = template.filled(saved(Path("/images") / name, prompt))
    assert len(words) == 7
    assert words[0] == "convert"
    assert not any(word.startswith("-") for word in words[1:5])
    assert words[5].startswith("--label=")
    assert words[6].startswith("./")
    assert not any("\0" in word for word in words)
    assert all(word.encode() for word in words)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("'' {path}", "empty"),
        ("{path}", "no field"),
        ("./{name} x", "no field"),
        ("x {pth}", "unknown field"),
        ("x {path.name}", "unknown field"),
        ("x {path!r}", "unknown field"),
        ("x {seed:04}", "unknown field"),
        ("x {}", "unknown field"),
        ("x {path", "brace"),
        ("x 'path", "quotation"),
        ("x {prompt}", "option"),
        ("x {name}", "option"),
        ("x {path} > y", "no meaning"),
        ("x {path} && y", "no meaning"),
        ("sh -c 'x {prompt}'", "read as code"),
        ("/bin/bash -ec 'x {{path}} {path}'", "read as code"),
    ],
)
def test_a_command_that_cannot_be_is_refused_before_the_run(text: str, problem: str) -> None:
    """The error names the option and what is wrong."""
    with pytest.raises(ConfigError, match=problem) as caught:
        CommandTemplate.parse(text, option="--then")
    assert "--then" in str(caught.value)


@pytest.mark.asyncio
async def test_a_command_gets_its_words_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process: no shell reads the prompt, and the keys are not in its environment."""
    monkeypatch.setenv("COMETAPI_KEY", "a-real-key")
    prompt = "$(touch owned); `touch owned` | touch owned & 'a' \"b\" *"
    out = tmp_path / "words.json"
    template = CommandTemplate.parse(
        f"{sys.executable} -c '{ECHO.replace(chr(39), chr(34))}' {out} --p={{prompt}}", option="-"
    )
    await run_command(template.filled(saved(tmp_path / "a.jpg", prompt)))
    assert json.loads(out.read_text()) == [f"--p={prompt}"]
    env = tmp_path / "env.json"
    code = f"import json, os; json.dump(dict(os.environ), open({str(env)!r}, 'w'))"
    await run_command([sys.executable, "-c", code])
    assert "COMETAPI_KEY" not in json.loads(env.read_text())
    assert "PATH" in json.loads(env.read_text())


@pytest.mark.asyncio
async def test_a_failing_command_says_why() -> None:
    """Its code and its last words, without escapes; a command that is not there too."""
    failing = "import sys; sys.stderr.write('no such colour\\x1b'); sys.exit(3)"
    with pytest.raises(HookError, match="ended with 3: no such colour·"):
        await run_command([sys.executable, "-c", failing])
    with pytest.raises(ConfigError, match="--then: no-such: not found"):
        then_hook("no-such {path}")
    with pytest.raises(HookError, match="cannot be started"):
        await run_command(["/no/such/program"])
    noisy = "import sys\nfor _ in range(500): sys.stderr.write('x' * 10_000)\nsys.exit(1)"
    with pytest.raises(HookError) as caught:
        await run_command([sys.executable, "-c", noisy])
    assert len(str(caught.value)) < 600


@pytest.mark.asyncio
async def test_a_command_whose_child_lives_on_has_ended(tmp_path: Path) -> None:
    """What a command starts in the background, with its pipes, does not hold up the run."""
    pid = tmp_path / "pid"
    code = (
        "import subprocess; child = subprocess.Popen(['sleep', '600']); "
        f"open({str(pid)!r}, 'w').write(str(child.pid))"
    )
    async with asyncio.timeout(patient()):
        await run_command([sys.executable, "-c", code])
    os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "line",
    [
        "sh -c 'echo {prompt}'",
        "sh -c -- 'echo {prompt}'",
        "bash -c -e 'echo {prompt}'",
        "bash -o pipefail -c 'echo {prompt}'",
        "env A=1 sh -c 'echo {prompt}'",
        "timeout 5 /bin/sh -c 'echo {path}'",
        "xargs -I% busybox sh -c 'echo {path}'",
        "python3.12 -W ignore -c 'print(\"{prompt}\")'",
        "perl -e 'print q({name})'",
        "node --eval 'f(`{prompt}`)'",
        "fish --command='echo {path}'",
        "php -r 'echo {path};'",
    ],
)
def test_a_field_is_never_a_part_of_a_script(line: str) -> None:
    """T20: whatever stands before the interpreter or between its option and the script."""
    with pytest.raises(ConfigError, match="would be read as code"):
        CommandTemplate.parse(line, option="--then")


@pytest.mark.parametrize(
    "line",
    [
        "sh -c 'echo \"$1\"' sh {path}",
        "bash -e notify.sh {path}",
        "env sh -c 'cp \"$1\" /tmp' sh {path}",
        "python3 convert.py -c {path}",
        "cwebp -c {path} -o {stem}.webp",
        "perl -w ./tag.pl -e {path}",
    ],
)
def test_a_field_behind_a_script_is_a_word(line: str) -> None:
    assert CommandTemplate.parse(line, option="--then").words


@pytest.mark.asyncio
async def test_a_command_that_hangs_is_killed_with_its_children(
    tmp_path: Path,
) -> None:
    """After its time the whole group of processes is gone, and the hook is not called again."""
    pid, script = tmp_path / "pid", tmp_path / "hang.sh"
    # a shell, because on a busy machine Python may take longer to start than the hook may run
    script.write_text(f"sleep 600 & echo $! > {pid}.$$; mv {pid}.$$ {pid}; wait\n")
    hook = then_hook(f"sh {script} {{path}}", timeout=2)
    async with hook:
        for _ in range(20):
            hook(Settled(outcome=saved(tmp_path / "a.jpg")))
    assert _ends(int(pid.read_text()))


def _ends(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], patient())[0])
    finally:
        os.close(process)


@pytest.mark.asyncio
async def test_commands_run_a_few_at_a_time(tmp_path: Path) -> None:
    """No more processes at once than the bound, and one for each image."""
    most, now, peak = 3, 0, 0

    async def call(image: Saved) -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await run_command(["true"])
        now -= 1

    hook = SavedHook("x", call, most=most)
    async with hook:
        for _ in range(12):
            hook(Settled(outcome=saved(tmp_path / "a.jpg")))
    assert (peak, hook._calls) == (most, 12)


# --- on_saved -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "plain", "callable"])
@pytest.mark.asyncio
async def test_on_saved_is_called_once_for_each_image(kind: str, tmp_path: Path) -> None:
    """A coroutine function, a plain one, an object: each image once. A plain one is called outside
    of the loop's thread, one image after the other, so it may block."""
    seen: list[Any] = []
    busy = threading.Lock()

    async def later(image: Saved) -> None:
        await asyncio.sleep(0)
        seen.append(image.index)

    def plain(image: Saved) -> None:
        assert busy.acquire(blocking=False)
        assert threading.current_thread() is not threading.main_thread()
        seen.append(image.index)
        busy.release()

    class Keeper:
        def __call__(self, image: Saved) -> Any:
            return later(image)

    functions: dict[str, Any] = {"async": later, "plain": plain, "callable": Keeper()}
    hook = SavedHook.of(functions[kind])
    assert hook is not None
    async with hook:
        for number in range(50):
            hook(Settled(outcome=evolve_index(saved(None), number)))
            await hook.keep_up()
    assert sorted(seen) == list(range(50))


def evolve_index(image: Saved, index: int) -> Saved:
    return Saved(request=image.request, job=image.job, stored=image.stored, index=index)


@pytest.mark.asyncio
async def test_the_errors_of_a_hook_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """P26: the first with its traceback, the others as a number; every image has its call."""

    async def fail(image: Saved) -> None:
        raise [ValueError("no"), asyncio.CancelledError()][image.index % 2]

    hook = SavedHook.of(fail)
    assert hook is not None
    with caplog.at_level(logging.WARNING, "fluxasync"):
        async with hook:
            for number in range(30):
                hook(Settled(outcome=evolve_index(saved(None), number)))
    first, last = caplog.records
    assert "ValueError" in first.getMessage() + str(first.exc_info)
    assert last.getMessage() == "on_saved failed for 30 of 30 images"


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.asyncio
async def test_a_hook_that_never_returns_ends_the_hook_only(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After its time it is not called again, and leaving the block does not wait for it."""
    release = threading.Event()

    async def hang(_: Saved) -> None:
        await asyncio.Event().wait()

    hook = SavedHook.of(hang if kind == "async" else lambda _: release.wait())
    assert hook is not None
    hook._timeout = 0.05
    began = time.monotonic()
    try:
        async with hook:
            for _ in range(200):
                hook(Settled(outcome=saved(None)))
                await hook.keep_up()
    finally:
        release.set()
    assert time.monotonic() - began < 30
    over, left = (record.getMessage() for record in caplog.records)
    assert over == "on_saved did not end within 0.05 s, so it is not called again; the run goes on"
    assert left == f"on_saved was not called for {200 - hook._calls} images"


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("error", [TimeoutError("no answer"), StopIteration()])
@pytest.mark.asyncio
async def test_every_error_of_a_hook_is_its_own(
    kind: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload of the hook that times out is a failure for one image, and not a hook that hangs;
    an error that a future does not take is a failure too."""
    calls = 0

    def fail_once(_: Saved) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error

    async def fail_once_later(image: Saved) -> None:
        try:
            fail_once(image)
        except StopIteration as stop:  # Python makes it this
            raise RuntimeError("coroutine raised StopIteration") from stop

    hook = SavedHook.of(fail_once_later if kind == "async" else fail_once)
    assert hook is not None
    async with asyncio.timeout(patient()):
        async with hook:
            for _ in range(10):
                hook(Settled(outcome=saved(None)))
    assert calls == 10
    [line] = caplog.messages
    assert line.startswith("on_saved failed for an image: ")


@pytest.mark.asyncio
async def test_the_end_of_a_run_says_what_it_waits_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that keeps the run from its end is named with the images; so is one that was cut off
    by a stop."""
    monkeypatch.setattr(saved_hooks, "SAID_AFTER", 0.0)
    monkeypatch.setattr(saved_hooks, "_STOPPED", 0.0)

    async def hang(_: Saved) -> None:
        await asyncio.Event().wait()

    hook = SavedHook.of(hang)
    assert hook is not None
    async with hook:
        hook(Settled(outcome=saved(None)))
        asyncio.get_running_loop().call_later(0.02, hook.stop)
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for on_saved of 1 image: at most 300 s each",
        "on_saved was cut off for 1 image",
    ]


@pytest.mark.asyncio
async def test_a_run_waits_for_a_slow_hook() -> None:
    """Back-pressure: few images wait, however many are saved; a stop ends the waiting."""
    gate, calls = asyncio.Event(), 0

    async def slow(_: Saved) -> None:
        nonlocal calls
        calls += 1
        await gate.wait()

    hook = SavedHook.of(slow)
    assert hook is not None
    async with hook:
        for _ in range(60):
            hook(Settled(outcome=saved(None)))
        waiting = asyncio.create_task(hook.keep_up())
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        await waiting
    assert calls == 60


@pytest.mark.asyncio
async def test_a_stopped_run_leaves_its_hook_soon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After Ctrl-C what is due has some seconds; then the rest is counted and left."""
    monkeypatch.setattr(saved_hooks, "_STOPPED", 0.05)

    async def slow(_: Saved) -> None:
        await asyncio.Event().wait()

    hook = SavedHook.of(slow)
    assert hook is not None
    async with asyncio.timeout(patient()):
        async with hook:
            for _ in range(60):
                hook(Settled(outcome=saved(None)))
            hook.stop()
            await hook.keep_up()
    assert caplog.messages == [
        "on_saved was not called for 52 images",
        "on_saved was cut off for 8 images",
    ]


@pytest.mark.parametrize("given", [5, "print"])
def test_on_saved_that_is_no_function_is_refused(given: object) -> None:
    """Before anything is paid."""
    with pytest.raises(ConfigError, match="on_saved"):
        SavedHook.of(given)  # type: ignore[arg-type]


# --- the end ------------------------------------------------------------------------------------


SUMMARY = Summary(saved=3, cost=Decimal("0.075"), seconds=2.5)


@pytest.mark.asyncio
async def test_a_command_gets_the_summary(tmp_path: Path) -> None:
    """As JSON on its standard input and in its environment."""
    out = tmp_path / "told.json"
    told_twice = "sys.stdin.read() + os.environ['FLUXASYNC_SUMMARY']"
    code = f"import os, sys; open({str(out)!r}, 'w').write({told_twice})"
    finish = Finish.of(f'{sys.executable} -c "{code}"', None)
    await finish.tell(summary_row(SUMMARY, place="images"))
    told = out.read_text()
    first = json.loads(told[: len(told) // 2])
    assert told == json.dumps(first) * 2
    assert (first["saved"], first["cost"], first["error"]) == (3, 0.075, None)
    assert first["text"].startswith("fluxasync: 3 new, ")


@pytest.mark.asyncio
async def test_a_command_need_not_read_the_summary(caplog: pytest.LogCaptureFixture) -> None:
    """One that closes its standard input at once has done its work."""
    row = summary_row(SUMMARY, place="x" * 2**17)
    for line in ("true", f"{sys.executable} -c 'import os; os.close(0)'"):
        await run_command(shlex.split(line), given=json.dumps(row).encode())
    assert not caplog.records


class Receiver:
    """A server on a socket that records what it gets and answers as it is told."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.got = b""

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/hooks/a-secret"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        self.got = head + await reader.readexactly(length)
        if self._answer is None:
            await reader.read()
        else:
            writer.write(self._answer)
        writer.close()


OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.asyncio
async def test_a_url_gets_the_summary(caplog: pytest.LogCaptureFixture) -> None:
    """One POST of JSON over a real socket; the texts are those that chat services show."""
    async with Receiver(OK) as receiver:
        await Finish.of(None, receiver.url).tell(summary_row(SUMMARY, place="images"))
    head, body = receiver.got.split(b"\r\n\r\n", 1)
    assert head.startswith(b"POST /hooks/a-secret ")
    assert b"application/json" in head.lower()
    told = json.loads(body)
    assert told["text"] == told["content"]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "HTTP 500", id="500"),
        pytest.param(b"HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n", "302", id="302"),
        pytest.param(b"nonsense\r\n\r\n", "was not reached", id="no HTTP"),
        pytest.param(b"", "was not reached", id="closed"),
        pytest.param(None, "did not answer", id="silent"),
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_url_that_does_not_answer_well_is_a_warning(
    answer: bytes | None,
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within its seconds, once, and without the path of the URL, which may be a secret."""
    monkeypatch.setattr(finishing, "POST_TIMEOUT", 0.3)
    async with Receiver(answer) as receiver:
        await Finish.of(None, receiver.url).tell(summary_row(SUMMARY, place="images"))
    (record,) = caplog.records
    assert said in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize("url", ["ftp://x/y", "example.com", "http://", "https://a b", "file:///x"])
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    """Before the run."""
    with pytest.raises(ConfigError, match="--notify-url"):
        Finish.of(None, url)


def test_the_row_says_what_ended_the_run() -> None:
    """The error and that nothing was charged are in the row."""
    row = summary_row(SUMMARY, place="s3://b/run", error=ConfigError("the budget is used"))
    assert (row["error"], row["place"]) == ("the budget is used", "s3://b/run")
    assert "the budget is used" in row["text"]
    assert summary_row(SUMMARY, place="x", simulated=True)["cost"] == 0
    assert os.fspath(Path(row["place"]))
