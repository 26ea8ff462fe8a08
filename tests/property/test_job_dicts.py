"""`Job.to_dict` and `Job.from_dict`: a job survives JSON, whatever its request holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import ConfigError, ImageInput, ImageRequest, Job

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.none() | st.integers(-(2**60), 2**60)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
INPUTS = st.one_of(
    st.builds(lambda name: ImageInput(url=f"https://example.com/{name}"), TEXT),
    st.builds(
        lambda name, sha256: ImageInput(path=Path(f"/pictures/{name}"), sha256=sha256),
        st.from_regex(r"[a-zé ]{1,8}\.png", fullmatch=True),
        st.none() | DIGESTS,
    ),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | INPUTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(TEXT.filter(bool), VALUES, max_size=3)
AMOUNTS = st.none() | st.decimals("0", "1000", places=6)
REQUESTS = st.builds(
    ImageRequest,
    prompt=TEXT,
    model=TEXT,
    image_prompt=st.none() | INPUTS,
    width=NUMBERS,
    seed=NUMBERS,
    guidance=st.none() | st.floats(0, 10),
    prompt_upsampling=st.none() | st.booleans(),
    parameters=FIELDS,
    extra_body=FIELDS,
    extras=FIELDS,
    n=st.integers(1, 9),
    name=st.none() | TEXT,
    index=st.integers(0, 10**6),
    occurrence=st.integers(0, 10**6),
)
JOBS = st.builds(
    Job,
    job_id=TEXT,
    polling_url=st.none() | TEXT,
    request=st.none() | REQUESTS,
    provider=st.none() | TEXT,
    submitted_at=st.datetimes(timezones=st.just(UTC)),
    price=AMOUNTS,
    cost=AMOUNTS,
    submit_seconds=st.none() | st.floats(0, 600),
)


def _kept(job: Job) -> Job:
    return Job.from_dict(json.loads(json.dumps(job.to_dict())))


@given(job=JOBS)
def test_a_job_survives_json(job: Job) -> None:
    """A job keeps its id, polling URL, request, prices and times."""
    assert job == _kept(job)


def test_the_webhook_and_image_bytes_are_left_out() -> None:
    """P22 A kept job has no webhook and no image bytes; its request has the same key."""
    picture = ImageInput.of(b"picture")
    request = ImageRequest(
        prompt="a fox",
        image_prompt=picture,
        webhook_url="https://example.com/hush",
        webhook_secret="hush",
        extras={"size": Decimal("2.5")},
    )
    job = Job(job_id="j", request=request)
    text = json.dumps(job.to_dict())
    assert "hush" not in text
    assert "picture" not in text
    kept = Job.from_dict(json.loads(text))
    assert kept.request is not None
    assert request.key == kept.request.key
    picture = evolve(picture, data=None)
    expected = evolve(request, webhook_url=None, webhook_secret=None, image_prompt=picture)
    assert expected == kept.request


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"job_id": 7}, id="an id that is not text"),
        pytest.param({"job_id": "j", "color": "red"}, id="an unknown field"),
        pytest.param({"job_id": "j", "submitted_at": "yesterday"}, id="no time"),
        pytest.param({"job_id": "j", "price": "free"}, id="no amount"),
        pytest.param({"job_id": "j", "request": {"prompt": 7}}, id="no prompt"),
        pytest.param({"job_id": "j", "request": ["a fox"]}, id="no request"),
        pytest.param(["j"], id="a list"),
    ],
)
def test_other_content_is_refused(kept: Any) -> None:
    """A dict that is not from `to_dict` is a ConfigError, not a job that cannot be collected."""
    with pytest.raises(ConfigError, match="not a job"):
        Job.from_dict(kept)


def test_a_value_that_json_cannot_hold_is_refused() -> None:
    """A value that would come back as another one is named when the job is kept."""
    job = Job(job_id="j", request=ImageRequest(prompt="a fox", extras={"when": datetime.now(UTC)}))
    with pytest.raises(ConfigError, match="datetime"):
        job.to_dict()
