"""The values of a parsed prompt template: text, choices, several of them, variables.

Each part has a `count` of its texts, up to `COUNT_CAP`, the `length` of the longest, and `texts()`,
in the order in which they are written. Several of N alternatives (`{2$$ and $$a|b|c}`) come in
every order, as dynamic-prompts makes them in its combinatorial mode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import Any, Protocol

from attrs import define, field, frozen

#: texts are counted up to here; lists that name lists make numbers of any length
COUNT_CAP = 10**15

#: alternatives of a list: a row makes 10,000 images at most (COPIES_MAXIMUM of the catalogue)
ALTERNATIVES_CAP = 10_000

#: 18! is more than COUNT_CAP, so no longer selection has to be counted
_COUNTED = 18


class Part(Protocol):
    """A place of a template that stands for several texts."""

    @property
    def count(self) -> int: ...

    @property
    def length(self) -> int: ...

    def texts(self) -> Iterator[str]: ...


@frozen(eq=False)
class PromptTemplate:
    """Text and choices, one after another."""

    parts: tuple[str | Part, ...]
    count: int = field(init=False)  #: of its texts, counted once, up to COUNT_CAP
    length: int = field(init=False)  #: characters of the longest text, at most

    @count.default
    def _counted(self) -> int:
        count = 1
        for part in self.parts:
            if not isinstance(part, str):
                count = min(count * part.count, COUNT_CAP)
        return count

    @length.default
    def _measured(self) -> int:
        return sum(len(part) if isinstance(part, str) else part.length for part in self.parts)

    def texts(self) -> Iterator[str]:
        """Yield each text, the last choice changing fastest."""
        ways = [(part,) if isinstance(part, str) else list(part.texts()) for part in self.parts]
        return map("".join, product(*ways))


@frozen(eq=False)
class Choice:
    """Alternatives at one place of a template."""

    alternatives: tuple[Part, ...]
    count: int = field(init=False)
    length: int = field(init=False)

    @count.default
    def _counted(self) -> int:
        return min(sum(alternative.count for alternative in self.alternatives), COUNT_CAP)

    @length.default
    def _measured(self) -> int:
        return max(alternative.length for alternative in self.alternatives)

    def texts(self) -> Iterator[str]:
        for alternative in self.alternatives:
            yield from alternative.texts()


@frozen(eq=False)
class Selection:
    """From `least` to `most` different alternatives, in every order, joined by a separator.

    `count` is an upper limit: a text that occurs twice is left out, and known only once made.
    """

    alternatives: tuple[Part, ...]
    least: int
    most: int
    separator: str
    count: int = field(init=False)
    length: int = field(init=False)

    @count.default
    def _counted(self) -> int:
        ways = _ways([alternative.count for alternative in self.alternatives])
        sizes = range(self.least, self.most + 1)
        return min(sum(ways[size] if size < len(ways) else COUNT_CAP for size in sizes), COUNT_CAP)

    @length.default
    def _measured(self) -> int:
        longest = max(alternative.length for alternative in self.alternatives)
        return self.most * (longest + len(self.separator))

    def texts(self) -> Iterator[str]:
        seen: set[str] = set()
        for size in range(self.least, self.most + 1):
            for chosen in permutations(self.alternatives, size):
                for texts in product(*(list(alternative.texts()) for alternative in chosen)):
                    joined = self.separator.join(texts)
                    if len(set(texts)) == size and joined not in seen:
                        seen.add(joined)
                        yield joined


def _ways(counts: Sequence[int]) -> list[int]:
    """Return in how many ways 0, 1, 2, … alternatives can be chosen and ordered."""
    most = min(len(counts), _COUNTED)
    ways = [1, *[0] * most]  # in one order
    for count in counts:
        for size in range(most, 0, -1):
            ways[size] += ways[size - 1] * count
    orders = 1
    for size in range(1, most + 1):
        orders *= size
        ways[size] *= orders
    return ways


@define(eq=False)
class Variable:
    """`${x=!…}`: one text at a time, the same wherever the prompt uses it."""

    values: Part
    current: str = ""
    count: int = field(init=False, default=1)

    @property
    def length(self) -> int:
        return self.values.length

    def texts(self) -> Iterator[str]:
        yield self.current


@frozen(eq=False)
class WithVariables:
    """A template for each value of its variables, the first variable changing slowest."""

    variables: tuple[Variable, ...]
    template: PromptTemplate
    count: int = field(init=False)

    @count.default
    def _counted(self) -> int:
        count = self.template.count
        for variable in self.variables:
            count = min(count * variable.values.count, COUNT_CAP)
        return count

    @property
    def length(self) -> int:
        return self.template.length

    def texts(self) -> Iterator[str]:
        return self._from(0)

    def _from(self, place: int) -> Iterator[str]:
        if place == len(self.variables):
            yield from self.template.texts()
            return
        for value in self.variables[place].values.texts():
            self.variables[place].current = value
            yield from self._from(place + 1)


@frozen(eq=False)
class JsonText:
    """A template inside a JSON string: each text is escaped as JSON."""

    template: Part
    count: int = field(init=False)

    @count.default
    def _counted(self) -> int:
        return self.template.count

    @property
    def length(self) -> int:
        return self.template.length

    def texts(self) -> Iterator[str]:
        return (json_text(text) for text in self.template.texts())


def json_text(value: Any) -> str:
    """Return a structured prompt as its JSON text: keys in their order, no escapes for letters."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def structured(text: str) -> Any:
    """Return the object or list of a prompt that is JSON; None for any other prompt."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) and value else None
