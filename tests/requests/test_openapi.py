"""The comparison of the catalogue with a provider's OpenAPI document."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import ConfigError
from fluxasync._requests.catalog.openapi import CatalogDifference, differences

OPTIONAL = {"type": "null"}
#: facts of BFL's document of 2026-04-23 for one model, in the forms that it uses
DEV: dict[str, Any] = {
    "properties": {
        "prompt": {"type": "string", "default": ""},
        "image_prompt": {"anyOf": [{"type": "string"}, OPTIONAL]},
        "width": {"type": "integer", "minimum": 256, "maximum": 1440, "multipleOf": 32,
                  "default": 1024},
        "height": {"type": "integer", "minimum": 256, "maximum": 1440, "multipleOf": 32,
                   "default": 768},
        "steps": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 50}, OPTIONAL],
                  "default": 28},
        "prompt_upsampling": {"type": "boolean", "default": False},
        "seed": {"anyOf": [{"type": "integer"}, OPTIONAL]},
        "guidance": {"anyOf": [{"type": "number", "minimum": 1.5, "maximum": 5.0}, OPTIONAL],
                     "default": 3.0},
        "safety_tolerance": {"type": "integer", "minimum": 0.0, "maximum": 6.0, "default": 2},
        "output_format": {"anyOf": [{"$ref": "#/components/schemas/OutputFormat"}, OPTIONAL],
                          "default": "jpeg"},
        "webhook_url": {"anyOf": [{"type": "string", "minLength": 1}, OPTIONAL]},
        "webhook_secret": {"anyOf": [{"type": "string"}, OPTIONAL]},
    },
}  # fmt: skip


def document(**schemas: Any) -> dict[str, Any]:
    """A document with these models; underscores of a name stand for dashes."""
    names = {name.replace("_", "-"): name for name in schemas}
    formats = {"enum": ["jpeg", "png", "webp"], "type": "string"}
    return {
        "paths": {
            f"/v1/{name}": {"post": {"requestBody": {"content": {"application/json": {
                "schema": {"$ref": f"#/components/schemas/{key}"}}}}}}
            for name, key in names.items()
        } | {"/v1/get_result": {"get": {}}},
        "components": {"schemas": {**schemas, "OutputFormat": formats}},
    }  # fmt: skip


def found(model: str, **schemas: Any) -> list[tuple[str | None, str, Any, Any]]:
    return [
        (each.parameter, each.what, each.catalogue, each.provider)
        for each in differences(document(**schemas), "bfl")
        if each.model == model
    ]


def changed(name: str, **facts: Any) -> dict[str, Any]:
    schema = copy.deepcopy(DEV)
    schema["properties"].setdefault(name, {}).update(facts)
    return schema


def test_the_facts_of_the_vendors_document_are_the_catalogues() -> None:
    """Numbers compare as numbers, references and "or null" are followed."""
    assert found("flux-dev", flux_dev=DEV) == []


@pytest.mark.parametrize(
    ("schema", "difference"),
    [
        (changed("width", maximum=2048), ("width", "maximum", 1440, 2048)),
        (changed("width", minimum=128), ("width", "minimum", 256, 128)),
        (changed("width", multipleOf=16), ("width", "step", 32, 16)),
        (changed("steps", default=30), ("steps", "default", 28, 30)),
        (changed("tone", type="string"), ("tone", "parameter", None, "has it")),
        (changed("output_format", enum=["jpeg"]),
         ("output_format", "values", ["jpeg", "png", "webp"], ["jpeg"])),
        ({**DEV, "required": ["prompt"]}, ("prompt", "required", False, True)),
        ({"properties": {k: v for k, v in DEV["properties"].items() if k != "seed"}},
         ("seed", "parameter", "has it", None)),
    ],
)  # fmt: skip
def test_each_kind_of_difference_is_found(schema: Any, difference: tuple[Any, ...]) -> None:
    """One changed fact is one difference."""
    assert found("flux-dev", flux_dev=schema) == [difference]


def test_models_of_one_side_only_are_found() -> None:
    """A model that either side lacks is a difference; videos and finetunes are no images."""
    video = {"properties": {"prompt": {"type": "string"}}}
    finetune = {"properties": {"finetune_id": {"type": "string"}}}
    schemas = document(flux_dev=DEV, flux_9_image=DEV, flux_3_video=video, delete_finetune=finetune)
    given = differences(schemas, "bfl")
    whole = {(each.model, each.catalogue, each.provider) for each in given if not each.parameter}
    assert ("flux-9-image", None, "has it") in whole
    assert ("flux-2-pro", "has it", None) in whole
    assert not {name for name, *_ in whole} & {"flux-3-video", "delete-finetune", "flux-pro"}


_WORDS = (
    "paths", "/v1/flux-dev", "post", "requestBody", "content", "schema", "anyOf", "properties",
    "application/json", "width", "$ref", "enum", "required", "default", "minimum",
)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(_WORDS), inner, max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["paths", "components"]), _JSON, max_size=2))
def test_no_document_breaks_the_comparison(sent: dict[str, Any]) -> None:
    """Whatever a server sends, the result is differences or one line."""
    try:
        assert all(isinstance(each, CatalogDifference) for each in differences(sent, "bfl"))
    except ConfigError as error:
        assert len(str(error)) < 120  # noqa: PT017 — either end is right


@given(_JSON)
def test_no_schema_breaks_the_comparison(schema: Any) -> None:
    """A property of any form is compared or passed over."""
    properties = {**DEV["properties"], "width": schema}
    differences(document(flux_dev={"properties": properties, "required": schema}), "bfl")


def test_references_in_a_circle_end() -> None:
    """A schema that refers to itself is passed over."""
    loop = {"$ref": "#/components/schemas/loop"}
    schemas = document(flux_dev={"properties": {**DEV["properties"], "width": loop}}, loop=loop)
    assert any(each.parameter is None for each in differences(schemas, "bfl"))
