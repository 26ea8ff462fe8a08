"""The keywords of `generate`: the catalogue's parameters as types, for editors and notebooks."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

import fluxasync
from fluxasync import FluxPool, FluxSession, FolderSink, ModelName, ModelParameters

#: kind of a parameter in the catalogue → its type
TYPES = {
    "int": "int", "number": "float", "bool": "bool", "text": "str", "ratio": "str", "url": "str",
    "image": "Image", "images": "Sequence[Image]",
}  # fmt: skip
#: keywords that are no parameters of a model
OWN = {"extra_body", "extras", "name"}


def _declared() -> dict[str, str]:
    return {name: kind.__forward_arg__ for name, kind in ModelParameters.__annotations__.items()}


def test_the_types_are_those_of_the_catalogue() -> None:
    """Each parameter of each model is a keyword of its kind; where models differ, of all kinds. A
    new catalogue entry fails here until its parameters are listed."""
    kinds: dict[str, set[str]] = {}
    choices: dict[str, set[str]] = {}
    for model in fluxasync.models():
        for parameter in model.parameters.values():
            kinds.setdefault(parameter.name, set()).add(parameter.kind)
            choices.setdefault(parameter.name, set()).update(parameter.choices)
    declared = _declared()
    assert declared.keys() == (kinds.keys() - {"prompt"}) | OWN
    for name in declared.keys() - OWN:
        kind = next(iter(kinds[name] - {"choice"}), "choice")  # one kind, beside choices
        if kind == "choice":
            assert declared[name].endswith("] | str | None")
            assert all(repr(choice) in declared[name] for choice in choices[name])
        elif name != "webhook_secret":
            assert declared[name] == f"{TYPES[kind]} | None"


def test_the_names_of_models_are_the_catalogues() -> None:
    """An editor completes the models that there are; any other text is allowed."""
    literal, text = get_args(ModelName)
    assert set(get_args(literal)) == {model.name for model in fluxasync.models()}
    assert text is str


@pytest.mark.parametrize("function", [fluxasync.generate, FluxSession.generate, FluxPool.generate])
def test_a_notebook_completes_the_keywords(function: object) -> None:
    """IPython and `help` read the signature: it names width, height, seed and the others."""
    assert callable(function)
    shown = inspect.signature(function).parameters
    assert {"model", "width", "height", "seed", "aspect_ratio", "input_image"} <= shown.keys()
    assert "parameters" in shown  # of a model that the catalogue lacks
    assert inspect.iscoroutinefunction(function)


def test_ipython_offers_the_keywords() -> None:
    """What a user sees after `generate("a fox", wi` and Tab."""
    completer = pytest.importorskip("IPython.core.completer")
    found = completer.IPCompleter(namespace={"fluxasync": fluxasync})
    line = 'fluxasync.generate("a fox", wi'
    with completer.provisionalcompleter():
        matches = [each.text for each in found.completions(line, len(line))]
    assert "width=" in matches


def test_an_object_shows_what_a_user_may_call(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Methods that only the engine calls are not offered by completion."""
    public = [name for name in dir(FolderSink(tmp_path)) if not name.startswith("_")]
    assert public == ["folder", "is_open", "store", "template"]
    assert "WIRE_FIELDS" not in dir(fluxasync.ImageRequest)
