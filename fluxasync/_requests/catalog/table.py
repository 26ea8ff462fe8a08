"""The catalogue: every entry, by name and by parameter.

Each entry says where its parameters and its price come from. Where sources differ, the more
permissive range and the dearer price are taken, and the entry's note says so. Durations are
server-side generation times, rounded from recorded answers and published measurements, less the
polls those contain; they pace the first poll and the estimate, so a wrong one costs little.
"""

from __future__ import annotations

from typing import Final

from .flux1 import FLUX_1, FLUX_1_EDITS
from .flux2 import FLUX_2, FLUX_TOOLS
from .flux3 import FLUX_3
from .model import SEED_MAXIMUM as SEED_MAXIMUM
from .model import Model

_MODELS = (*FLUX_1, *FLUX_2, *FLUX_1_EDITS, *FLUX_3, *FLUX_TOOLS)

TABLE: Final = {model.name: model for model in _MODELS}


def models() -> tuple[Model, ...]:
    """Return every model of the catalogue, the vendor page's own first."""
    return _MODELS


def find(name: str) -> Model | None:
    """Return the model of that name, or None if the catalogue does not know it."""
    return TABLE.get(name)


def _owners() -> dict[str, tuple[str, ...]]:
    owners: dict[str, tuple[str, ...]] = {}
    for model in _MODELS:
        for name in model.parameters:
            owners[name] = (*owners.get(name, ()), model.name)
    return owners


_OWNERS = _owners()


def models_with(parameter: str) -> tuple[str, ...]:
    """Return the names of the models that have a parameter; empty if none does."""
    return _OWNERS.get(parameter, ())
