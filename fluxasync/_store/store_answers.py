"""Since when an object store was asked and gave no answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class StoreAnswers:
    """Notes the calls of a store, from any thread. While some are answered, the store answers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls = 0  #: under way
        self._asked_at: float | None = None  #: monotonic; the first call since the last answer

    @property
    def silence(self) -> float:
        """Seconds since the store was asked without an answer; 0 = it answers."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    @contextmanager
    def awaited(self, unanswered: type[Exception]) -> Iterator[None]:
        """Note a call, which `unanswered` ends if no answer came; other errors are answers."""
        with self._lock:
            self._calls += 1
            if self._asked_at is None:
                self._asked_at = time.monotonic()
        is_answer = True
        try:
            yield
        except unanswered:
            is_answer = False
            raise
        except Exception:
            raise
        except BaseException:  # it was cancelled; a last one leaves nothing to wait for
            is_answer = self._calls == 1
            raise
        finally:
            with self._lock:
                self._calls -= 1
                if is_answer:
                    self._asked_at = time.monotonic() if self._calls else None
