"""P2: no two submissions have the same token."""

from __future__ import annotations

import os

import pytest

from fluxasync._core.attempts import new_token


def test_tokens_are_different() -> None:
    tokens = {new_token() for _ in range(10_000)}
    assert len(tokens) == 10_000
    assert {len(bytes.fromhex(token)) for token in tokens} == {16}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_tokens_of_its_own() -> None:
    new_token()  # from here on some are held
    read, write = os.pipe()
    process = os.fork()
    if not process:
        os.write(write, " ".join(new_token() for _ in range(300)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        theirs = set(answer.read().split())
    os.waitpid(process, 0)
    assert len(theirs) == 300
    assert not theirs & {new_token() for _ in range(300)}
