"""Case 15: seeds of 64 bits are sent and kept as they are; -1 and shortened seeds are refused.

Other members of the kind: a seed above 2^63 (Comfy-Org/ComfyUI#13814), a page that rounds the seed
it shows (ShiftHackZ/Stable-Diffusion-KMP#569), whole numbers that became floats because their
column has a gap (pandas-dev/pandas#32134), -1 as the default for "any"
(gelasdev/ComfyUI-FLUX-BFL-API), 1.06E+15 from a spreadsheet.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulator_sessions import batch_of, fast_session, outcomes_of, rows, small_requests

from fluxasync import Batch, ConfigError, ImageRequest, Prompts, Saved
from fluxasync._requests.catalog import validate
from fluxasync.gallery import write
from fluxasync.simulator import Scenario, Simulator

DATA = Path(__file__).parent / "data"
LARGEST = 2**64 - 1
SEEDS = [0, 2**32, 1062145498291237, 2**53 + 1, 2**63 - 1, 2**63, LARGEST]
QUICK = Scenario(latency=(0, 0.01))


async def complaint_of(source: Any, **options: Any) -> str:
    async with fast_session("http://127.0.0.1:9") as flux:
        batch = batch_of(flux, source, **options)
        with pytest.raises(ConfigError) as caught:
            await batch.check()
        await batch.aclose()
    return str(caught.value)


@pytest.mark.asyncio
async def test_the_table_of_the_case_names_minus_one_only() -> None:
    """Case 15: the seed of 16 digits passes; -1 is refused with "leave it out", and no other seed
    is advised."""
    message = await complaint_of(DATA / "seeds.csv")
    assert "1062145498291237" not in message
    assert "-1 means any seed in other tools: here leave the seed out" in message
    assert "nearest" not in message


@pytest.mark.asyncio
async def test_every_digit_of_a_seed_reaches_the_wire_the_journal_and_the_lists(
    tmp_path: Path,
) -> None:
    """Case 15: what the provider receives, metadata.jsonl and a later run have the seed as given;
    the later run pays for nothing."""
    requests = [request for seed in SEEDS for request in small_requests(1, start=seed)]
    async with Simulator(QUICK) as sim:
        for _ in range(2):
            async with fast_session(sim.url) as flux, Batch(flux, requests, out=tmp_path) as batch:
                saved = await outcomes_of(batch)
            assert sorted(each.seed for each in saved if isinstance(each, Saved)) == SEEDS
        assert sorted(charge.seed for charge in sim.charges if charge.seed is not None) == SEEDS
    assert sorted(row["seed"] for row in rows(tmp_path / "metadata.jsonl")) == SEEDS


@pytest.mark.asyncio
async def test_the_gallery_shows_every_digit_of_a_seed(tmp_path: Path) -> None:
    """A browser rounds whole numbers from 2^53 on, so the page has larger seeds as text."""
    async with Simulator(QUICK) as sim, fast_session(sim.url) as flux:
        await Batch(flux, small_requests(1, start=LARGEST), out=tmp_path).run()
    page = (await write(tmp_path)).path.read_text("utf-8")
    assert f'"{LARGEST}"' in page


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "list.json"])
async def test_a_seed_is_the_same_in_every_kind_of_list(name: str, tmp_path: Path) -> None:
    """The largest seed has one key, whatever file it is in, as a number or as text."""
    path, seeds = tmp_path / name, (LARGEST, str(LARGEST))
    separator = "\t" if name.endswith("tsv") else ","
    records = [{"prompt": "a kite", "seed": seed} for seed in seeds]
    path.write_text(
        {
            ".json": json.dumps(records),
            ".jsonl": "\n".join(map(json.dumps, records)),
        }.get(path.suffix, "\n".join(f"{a}{separator}{b}" for a, b in
                                     [("prompt", "seed"), *(("a kite", s) for s in seeds)]))
    )  # fmt: skip
    assert await _seeds_in(path) == [LARGEST, LARGEST]


async def _seeds_in(source: Any, **options: Any) -> list[int | None]:
    found = []
    async with Simulator(QUICK) as sim, fast_session(sim.url) as flux:
        rows = Prompts(
            source, model="flux-dev", parameters={"width": 256, "height": 256}, **options
        )
        await Batch(flux, rows).run()
        found = [charge.seed for charge in sim.charges]
    return found


@pytest.mark.asyncio
async def test_seeds_of_a_range_reach_the_largest(tmp_path: Path) -> None:
    """`seeds=` takes the largest seeds too; the one after the last is refused."""
    found = await _seeds_in(["a kite"], seeds=[LARGEST - 1, LARGEST])
    assert sorted(map(int, filter(None, found))) == [LARGEST - 1, LARGEST]
    assert "seed=18446744073709551616" in await complaint_of(["a kite"], seeds=[LARGEST + 1])


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", ["1.06215E+15", "1,06215E+15", "1.8446744073709552e+19"])
async def test_a_seed_that_a_spreadsheet_shortened_is_named(seed: str, tmp_path: Path) -> None:
    """Its last digits are lost, so it would be another image: the message says where they went."""
    path = tmp_path / "list.csv"
    path.write_text(f"prompt;seed\na kite;{seed}\n" if "," in seed else f"prompt,seed\nx,{seed}\n")
    message = await complaint_of(path)
    assert "has lost its last digits to a spreadsheet" in message
    assert "nearest" not in message


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [float(2**53), float(LARGEST), "9007199254740992.0"])
async def test_a_seed_that_a_float_has_rounded_is_named(seed: float | str) -> None:
    """pandas makes floats of a column with a gap; from 2^53 on they are other seeds."""
    assert "has lost its last digits" in await complaint_of([{"prompt": "a kite", "seed": seed}])


@pytest.mark.parametrize("seed", [-1, -2, "-1", LARGEST + 1, 7.5, True, math.nan, "any"])
def test_what_is_no_seed_is_refused_without_another_seed_as_advice(seed: Any) -> None:
    """No message advises a seed that was not asked for; only -1 has a meaning elsewhere."""
    with pytest.raises(ConfigError) as caught:
        validate(ImageRequest(prompt="a kite", seed=seed))
    assert "nearest" not in str(caught.value)
    assert ("-1 means any seed" in str(caught.value)) == (seed in (-1, "-1"))


@given(st.integers(0, LARGEST))
def test_any_seed_passes_as_it_is(seed: int) -> None:
    """Every whole number that 64 bits hold is a seed, as a number and as text, with one key."""
    number, text = (validate(ImageRequest(prompt="x", seed=each)) for each in (seed, str(seed)))  # type: ignore[arg-type]
    assert (number.seed, text.seed) == (seed, seed)
    assert number.key == text.key
