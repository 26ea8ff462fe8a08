"""Which charts a benchmark has, drawn with matplotlib (extra `bench`) as SVG images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..._report.drawing import Chart, matplotlib_settings
from ..records import ImageRecord, Report
from .load_charts import breakdown, distributions, latency, throughput
from .time_charts import each_image, ramps, slots_over_time


def draw_charts(report: Report, records: Iterable[ImageRecord] = ()) -> tuple[Chart, ...]:
    """Draw latency, throughput, time breakdown, slots, distribution and the single images.

    A chart by load needs two loads, and one of images two images; without them there is none.
    Raises ConfigError when matplotlib is missing.
    """
    with matplotlib_settings():
        return tuple(_charts(report, list(records)))


def _charts(report: Report, images: Sequence[ImageRecord]) -> Iterator[Chart]:
    stages = [stage for stage in report.stages if stage.images]
    over_time = list(ramps(images, report))
    yield from over_time
    if not over_time:
        yield from latency(stages)
        yield from throughput(stages, report)
    if stages:
        yield breakdown(stages)
    if len(report.slots) > 1:
        yield slots_over_time(report.slots, report.stages)
    yield from distributions(images, report)
    yield from each_image(images)
