"""The log of a run in a bucket: what is acknowledged is in it once, and only one writer goes on."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
from itertools import count, groupby
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest
from support.object_stores import BUCKET, SmallS3, options_of
from support.patience import patient
from support.store_fixtures import skip_on_moto

from fluxasync import JournalError
from fluxasync._store import object_log
from fluxasync._store.object_log import Fenced, Group, ObjectLog
from fluxasync._store.objects import Objects

pytest.importorskip("obstore", reason="the extra `store` is not installed")

URL = f"s3://{BUCKET}/run"
LOG = "run/.fluxasync/log"


@pytest.fixture
def memory(tmp_path: Path) -> Objects:
    return Objects(f"memory://{tmp_path.name}/run")


def _in(bucket: SmallS3, **options: str) -> Objects:
    return Objects(URL, options_of(bucket.url) | options)


def _opened(place: Objects) -> ObjectLog:
    """A log that has read what is there."""
    log = ObjectLog(place)
    _lines(log)
    return log


def _lines(log: ObjectLog, after: int = 0) -> list[str]:
    return [line for group in log.groups(after) for line in group.lines]


def _filled(place: Objects, groups: int) -> ObjectLog:
    log = _opened(place)
    for number in range(1, groups + 1):
        log.append([f"record {number}"])
    return log


# --- reading and appending ------------------------------------------------------------------------


def test_what_was_appended_is_read_by_another_log(objects: Objects):
    """Groups, their order and their lines come back as they were."""
    log = _opened(objects)
    groups = [["a", "b"], [], ["ü \u2028 \x85 \r", ""], ['{"number": 1}']]
    assert [log.append(lines) for lines in groups] == [1, 2, 3, 4]
    found = list(ObjectLog(objects).groups())
    assert found == [
        Group(number, log.writer, tuple(lines)) for number, lines in enumerate(groups, start=1)
    ]
    assert [group.number for group in ObjectLog(objects).groups(2)] == [3, 4]
    assert list(ObjectLog(objects).groups(4)) == []
    assert ObjectLog(objects).group(3) == found[2]
    assert ObjectLog(objects).group(5) is None


def test_a_log_goes_on_after_what_it_read(objects: Objects):
    """The next process appends behind the groups of the first."""
    _filled(objects, 3)
    log = ObjectLog(objects)
    assert [group.number for group in log.groups(2)] == [3]
    assert log.append(["next"]) == 4
    assert _lines(log) == ["record 1", "record 2", "record 3", "next"]


def test_a_record_of_two_lines_is_refused(memory: Objects):
    """It would be read as two records."""
    log = _opened(memory)
    with pytest.raises(ValueError, match="one line"):
        log.append(["a", "b\nc"])
    assert log.append(["d"]) == 1


# --- fencing --------------------------------------------------------------------------------------


def test_a_writer_that_was_overtaken_is_fenced_for_good(objects: Objects):
    """It learns who goes on; nothing of it gets into the log any more."""
    older = _filled(objects, 2)
    newer = _opened(objects)
    newer.append(["of the newer"])
    who = f"process {os.getpid()} on {socket.gethostname()}"
    for _ in range(2):
        with pytest.raises(Fenced, match=f"{objects.url}: another run has taken over .{who}"):
            older.append(["of the older"])
    assert newer.append(["again"]) == 4
    assert _lines(ObjectLog(objects)) == ["record 1", "record 2", "of the newer", "again"]


def test_a_log_that_did_not_read_is_fenced(memory: Objects):
    """Records that it does not know would contradict its own."""
    _filled(memory, 2)
    with pytest.raises(Fenced):
        ObjectLog(memory).append(["unread"])


def test_a_log_that_was_fenced_by_its_lease_appends_no_more(memory: Objects):
    """A busy writer stops, so that the one that took over gets a number."""
    log = _filled(memory, 1)
    log.fence(Fenced("another run has taken over"))
    with pytest.raises(Fenced):
        log.append(["more"])
    assert _lines(ObjectLog(memory)) == ["record 1"]


def test_equal_records_of_another_writer_are_not_its_own(memory: Objects):
    """A group is known by its writer, not by its lines."""
    one, two = _opened(memory), _opened(memory)
    one.append(["the same"])
    with pytest.raises(Fenced):
        two.append(["the same"])


class _Fighter(Thread):
    """Opens the log again and again, and appends until it is fenced or rests.

    Before each group but the first it waits until its rival has read the log, so that both want
    the same number.
    """

    def __init__(self, place: Objects, name: str, takeovers: int) -> None:
        super().__init__(name=name, daemon=True)
        self._wanted = takeovers
        self._place, self._random = place, Random(name)
        self._has_read = Event()
        self._seen = 0
        self._is_overtaken = False
        self.acknowledged: list[str] = []
        self.takeovers = self.fenced = 0
        self.rival: _Fighter
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while self.error is self.rival.error is None and not self._is_over():
                self._turn()
        except BaseException as error:
            self.error = error

    def _is_over(self) -> bool:
        return min(self.takeovers, self.rival.takeovers) >= self._wanted

    def _turn(self) -> None:
        log = ObjectLog(self._place)
        for group in log.groups(self._seen):
            self._seen, self._is_overtaken = group.number, True
        self._has_read.set()
        for number in count():
            line = f"{self.name}-{log.writer}-{number}"
            try:
                self._seen = log.append([line])
            except Fenced:
                self.fenced += 1
                return
            self.acknowledged.append(line)
            self.takeovers += self._is_overtaken
            self._is_overtaken = False
            self.rival._has_read.wait(0.05)
            self.rival._has_read.clear()
            if self._random.random() < 0.3:
                return


def _fight(place: Objects, *, takeovers: int) -> None:
    """Let two writers take a log over so often each, and compare it with what they were told."""
    one, two = _Fighter(place, "one", takeovers), _Fighter(place, "two", takeovers)
    one.rival, two.rival = two, one
    for fighter in (one, two):
        fighter.start()
    for fighter in (one, two):
        fighter.join(patient(200))
        assert not fighter.is_alive()
        assert fighter.error is None, fighter.error
        assert fighter.takeovers >= takeovers
    assert one.fenced + two.fenced > 0
    found = list(ObjectLog(place).groups())
    lines = [line for group in found for line in group.lines]
    assert sorted(lines) == sorted([*one.acknowledged, *two.acknowledged])
    reigns = [writer for writer, _ in groupby(group.writer for group in found)]
    assert len(reigns) == len(set(reigns)), "a writer went on after it was overtaken"


def test_two_writers_that_fight(objects: Objects, request: pytest.FixtureRequest):
    """Whoever wins, every acknowledged record is in the log, once, and a loser appends no more."""
    skip_on_moto(request)
    _fight(objects, takeovers=30)


@pytest.mark.slow
def test_two_writers_that_fight_and_lose_answers(s3: SmallS3):
    """The same where every tenth answer to a PUT is lost."""
    s3.drops_every = 10
    _fight(_in(s3), takeovers=10)


_WRITER = """
import sys
from fluxasync._store.object_log import ObjectLog
from fluxasync._store.objects import Objects

log = ObjectLog(Objects(sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:])))
last = sum(1 for _ in log.groups())
while True:
    last = log.append([f"record {last + 1}"])
    print(last, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_writer_that_is_killed(kind: str, s3: SmallS3, tmp_path: Path):
    """What was acknowledged is in the log, and at most the group that was on its way."""
    url = URL if kind == "s3" else f"file://{tmp_path}/run"
    store = options_of(s3.url) if kind == "s3" else {}
    command = [sys.executable, "-c", _WRITER, url, *(f"{key}={store[key]}" for key in store)]
    whole = 0
    for turn in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(3 + turn):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            acknowledged = whole + 3 + turn + len(child.stdout.read().split())
        lines = _lines(ObjectLog(Objects(url, store)))
        assert lines == [f"record {number}" for number in range(1, len(lines) + 1)]
        whole = len(lines)
        assert whole in (acknowledged, acknowledged + 1)


# --- a store that misbehaves ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"drops": 1}, id="broken connection"),
        pytest.param({"losses": 1, "loses_probes": True}, id="503 of a PUT that was done"),
        pytest.param({"late": 1, "late_seconds": 0.5}, id="an answer that comes too late"),
        pytest.param({"conflicts": 2}, id="409 of a PUT that was not done"),
        pytest.param({"hiccups": 3}, id="503"),
    ],
)
def test_a_group_whose_answer_is_lost_is_in_the_log_once(s3: SmallS3, fault: dict[str, float]):
    """Its own bytes are recognised, what was not done is done, and the next group follows."""
    log = _opened(_in(s3, timeout="200ms"))
    log.append(["before"])
    for name, value in fault.items():
        setattr(s3, name, value)
    assert log.append(["lost"]) == 2
    assert log.append(["after"]) == 3
    assert _lines(ObjectLog(_in(s3))) == ["before", "lost", "after"]


def test_a_lost_answer_does_not_hide_another_writer(s3: SmallS3):
    """The number was taken before: the object there is not its own."""
    older, newer = _opened(_in(s3)), _opened(_in(s3))
    newer.append(["of the newer"])
    s3.hiccups = 1
    with pytest.raises(Fenced):
        older.append(["of the older"])


@pytest.mark.usefixtures("few_retries")
@pytest.mark.parametrize(
    ("fault", "step"),
    [
        pytest.param({"refusals": {"PUT": 403}}, "access is refused: check the cred", id="403"),
        pytest.param({"refusals": {"PUT": 404}}, "no such bucket", id="no bucket"),
        pytest.param({"refusals": {"PUT": 503}}, "check the network and the store", id="503"),
        pytest.param({"conflicts": 1_000}, "comes and goes", id="409 for ever"),
        pytest.param({"drops": 1, "refusals": {"GET": 403}}, "access is refused", id="no read"),
    ],
)
def test_a_log_that_cannot_append_stays_stopped(s3: SmallS3, fault: dict[str, object], step: str):
    """Whether the group is in the log is unknown, so only reading it again tells where to go on."""
    log = _opened(_in(s3))
    log.append(["before"])
    healthy = {name: getattr(s3, name) for name in fault}
    for name, value in fault.items():
        setattr(s3, name, value)
    with pytest.raises(JournalError, match=step) as caught:
        log.append(["unknown"])
    assert not isinstance(caught.value, Fenced)
    for name, value in healthy.items():
        setattr(s3, name, value)
    with pytest.raises(JournalError, match=step):
        log.append(["another"])
    again = _opened(_in(s3))
    again.append(["after"])
    lines = _lines(ObjectLog(_in(s3)))
    assert lines == [line for line in ("before", "unknown", "after") if line in lines]
    assert {"before", "after"} <= set(lines)


@pytest.mark.usefixtures("few_retries")
@pytest.mark.parametrize(
    ("status", "step"),
    [
        (401, "access is refused: check the credentials"),
        (403, "access is refused: check the credentials"),
        (404, "there is no such bucket"),
        (503, "check the network and the store"),
    ],
)
def test_a_log_that_cannot_be_read_is_an_error(s3: SmallS3, status: int, step: str):
    """Without its records a run could pay again. The error says the next step."""
    _filled(_in(s3), 2)
    s3.refusals = {"GET": status}
    with pytest.raises(JournalError, match=step):
        list(ObjectLog(_in(s3)).groups())


def test_a_store_that_overwrites_is_refused_at_the_first_group(s3: SmallS3):
    """Two writers would overwrite each other's records."""
    s3.honours_conditions = False
    log = _opened(_in(s3))
    with pytest.raises(JournalError, match=r"overwrites an object.*choose a store"):
        log.append(["first"])


# --- a log that was changed -----------------------------------------------------------------------


@pytest.mark.parametrize("removed", [1, 2, 5])
def test_a_missing_group_is_an_error(s3: SmallS3, removed: int):
    """What is missing may be a paid job."""
    _filled(_in(s3), 6)
    del s3.objects[f"{LOG}/{removed:012}.jsonl"]
    with pytest.raises(JournalError, match=rf"objects .* are missing, such as .*{removed:012}"):
        list(ObjectLog(_in(s3)).groups())


@pytest.mark.parametrize("left", [0, 3])
def test_a_log_that_ends_before_what_is_known_is_an_error(s3: SmallS3, left: int):
    """Somebody removed the end of the log, or all of it."""
    _filled(_in(s3), 5)
    for number in range(left + 1, 6):
        del s3.objects[f"{LOG}/{number:012}.jsonl"]
    with pytest.raises(JournalError, match="are missing, such as"):
        list(ObjectLog(_in(s3)).groups(5))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="cut"),
        pytest.param(lambda content: content[: len(content) // 2], id="half"),
        pytest.param(lambda content: content + b"more\n", id="longer"),
        pytest.param(lambda content: content.replace(b'"number":2', b'"number":3'), id="number"),
        pytest.param(lambda content: b"\xff" + content, id="no text"),
        pytest.param(lambda content: b"[1]\n" + content, id="no head"),
        pytest.param(lambda content: content.replace(b'"lines":1', b'"lines":"1"'), id="count"),
        pytest.param(lambda content: content.replace(b'"lines":1', b'"lines":-1'), id="negative"),
        pytest.param(lambda content: b"", id="empty"),
    ],
)
def test_a_damaged_group_is_an_error(s3: SmallS3, damage):
    """It names the object, and what to do."""
    _filled(_in(s3), 3)
    name = f"{LOG}/{2:012}.jsonl"
    s3.objects[name] = damage(s3.objects[name])
    with pytest.raises(JournalError, match=rf"{2:012}.jsonl: this object .* damaged: restore it"):
        list(ObjectLog(_in(s3)).groups())


def test_foreign_objects_beside_the_log_are_ignored(s3: SmallS3):
    """A tool may leave its own files there."""
    _filled(_in(s3), 2)
    for name in ("notes.txt", "0001.jsonl", "sealed/notes.txt", "000000000009.jsonl.bak"):
        s3.objects[f"{LOG}/{name}"] = b"x"
    assert _lines(ObjectLog(_in(s3))) == ["record 1", "record 2"]


# --- sealing --------------------------------------------------------------------------------------


@pytest.fixture
def small_seals(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(object_log, "SEAL", 10)
    return 10


def test_every_thousand_groups_are_sealed(memory: Objects):
    """A start reads few objects, and the same records."""
    log = _filled(memory, 2_005)
    log.seal()
    assert sorted(name.rpartition("/")[2] for name in memory.names(object_log.SEALED)) == [
        "000000000001-000000001000.jsonl.gz",
        "000000001001-000000002000.jsonl.gz",
    ]
    for after in (0, 1, 999, 1_000, 1_001, 1_999, 2_000, 2_001, 2_005):
        expected = [f"record {number}" for number in range(after + 1, 2_006)]
        assert _lines(ObjectLog(memory), after) == expected
    assert log.append(["next"]) == 2_006
    last = ObjectLog(memory)
    assert _lines(last, 2_000)[-1] == "next"
    assert last.append(["last"]) == 2_007


def test_a_start_reads_few_objects(s3: SmallS3, small_seals: int):
    """Two lists, the sealed objects, and the groups after them."""
    _filled(_in(s3), 5 * small_seals + 3).seal()
    s3.calls.clear()
    assert len(_lines(ObjectLog(_in(s3)))) == 53
    assert s3.calls == {"GET": 2 + 5 + 3}


@pytest.mark.usefixtures("small_seals")
def test_a_log_is_read_while_it_is_written_and_sealed(objects: Objects):
    """A reader has the groups up to some moment, without a gap."""
    log = _opened(objects)

    def write() -> None:
        for number in range(1, 61):
            log.append([f"record {number}"])
            log.seal()

    writer = Thread(target=write)
    writer.start()
    read = 0
    while writer.is_alive():
        lines = _lines(ObjectLog(objects))
        assert lines == [f"record {number}" for number in range(1, len(lines) + 1)]
        assert len(lines) >= read
        read = len(lines)
    writer.join()
    assert len(_lines(ObjectLog(objects))) == 60


def test_sealing_goes_on_where_it_ended(s3: SmallS3, small_seals: int):
    """Only what is new is read, and a seal of another process counts."""
    first = _filled(_in(s3), small_seals + 1)
    first.seal()
    second = ObjectLog(_in(s3))
    for number in range(small_seals):
        _lines(second, small_seals + number)
        second.append([f"more {number}"])
    s3.calls.clear()
    second.seal()
    first.seal()
    assert s3.calls == {"GET": 1 + small_seals, "PUT": 1}
    assert len(_lines(ObjectLog(_in(s3)))) == 2 * small_seals + 1


def test_a_seal_that_exists_stays(s3: SmallS3, small_seals: int):
    """Two that seal the same groups make the same bytes; the second changes nothing."""
    log = _filled(_in(s3), small_seals)
    other = _opened(_in(s3))
    log.seal()
    (name,) = [name for name in s3.objects if "/sealed/" in name]
    made = s3.objects[name]
    other._sealed_to = 0
    s3.objects[name] = made + b"first"
    other.seal()
    assert s3.objects.pop(name) == made + b"first"
    again = _opened(_in(s3))
    again.seal()
    assert s3.objects[name] == made


@pytest.mark.usefixtures("small_seals")
def test_sealed_groups_stay_as_objects(s3: SmallS3):
    """A writer that was overtaken long ago is fenced; it could take a number that were free."""
    older = _filled(_in(s3), 3)
    newer = _opened(_in(s3))
    for number in range(20):
        newer.append([f"newer {number}"])
    newer.seal()
    with pytest.raises(Fenced):
        older.append(["older"])
    assert len(_lines(ObjectLog(_in(s3)))) == 23


@pytest.mark.usefixtures("small_seals", "few_retries")
def test_a_failed_seal_is_made_later(s3: SmallS3):
    """Appending does not depend on it."""
    log = _filled(_in(s3), 10)
    s3.refusals = {"GET": 503}
    with pytest.raises(JournalError, match="check the network"):
        log.seal()
    s3.refusals = {"PUT": 403}
    with pytest.raises(JournalError, match="access is refused"):
        log.seal()
    s3.refusals = {}
    assert log.append(["next"]) == 11
    log.seal()
    assert len([name for name in s3.objects if "/sealed/" in name]) == 1


@pytest.mark.usefixtures("small_seals")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-20], id="cut"),
        pytest.param(lambda content: b"no gzip", id="no gzip"),
        pytest.param(lambda content: content[:30] + b"\0\0" + content[32:], id="changed"),
        pytest.param(lambda content: gzip.compress(b"[]\n"), id="no groups"),
    ],
)
def test_a_damaged_seal_is_an_error(s3: SmallS3, damage):
    """It names the object, and what to do."""
    _filled(_in(s3), 12).seal()
    (name,) = [name for name in s3.objects if "/sealed/" in name]
    s3.objects[name] = damage(s3.objects[name])
    with pytest.raises(JournalError, match=r"jsonl.gz: this object .* damaged: restore it"):
        list(ObjectLog(_in(s3)).groups())


_SEALER = """
import sys
from fluxasync._store import object_log
from fluxasync._store.objects import Objects

object_log.SEAL = 10
options = dict(pair.split("=", 1) for pair in sys.argv[2:])
log = object_log.ObjectLog(Objects(sys.argv[1], options))
for _ in log.groups():
    pass
log.seal()
"""


@pytest.mark.usefixtures("small_seals")
@pytest.mark.parametrize(
    ("fault", "sealed"),
    [
        pytest.param({"silent_gets_from": 32}, 0, id="reading"),
        pytest.param({"silent_name": "000000000011-"}, 2, id="creating"),
    ],
)
def test_a_process_that_is_killed_while_it_seals(
    s3: SmallS3, fault: dict[str, object], sealed: int
):
    """The log is whole at any time; the next process seals the rest."""
    _filled(_in(s3), 25)
    s3.calls.clear()
    for name, value in fault.items():
        setattr(s3, name, value)
    options = [f"{name}={value}" for name, value in options_of(s3.url).items()]
    child = subprocess.Popen([sys.executable, "-c", _SEALER, URL, *options])
    try:
        assert s3.is_silent.wait(patient())
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len([name for name in s3.objects if "/sealed/" in name]) == sealed
    s3.silent_gets_from = s3.silent_name = None
    log = _opened(_in(s3))
    assert log.append(["next"]) == 26
    log.seal()
    assert len([name for name in s3.objects if "/sealed/" in name]) == 2
    expected = [f"record {number}" for number in range(1, 26)]
    assert _lines(ObjectLog(_in(s3))) == [*expected, "next"]
