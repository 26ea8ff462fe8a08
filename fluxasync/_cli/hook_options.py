"""The options of what a run calls: for each image, and at its end."""

from __future__ import annotations

from attrs import frozen
from cyclopts import Group, Parameter


@Parameter(name="*", group=Group("Hooks", sort_key=9))
@frozen(kw_only=True)
class HookOptions:
    """What `run` calls. Nothing of it ends the run or holds it up for ever.

    Parameters
    ----------
    then
        Command for each new image, as 'cwebp {path} -o {stem}.webp'; a few at a time, without a
        shell. Fields: {path}, {stem} (the path without extension), {name}, {folder}, {prompt},
        {seed}, {index}.
    on_finish
        Command at the end of the run. Gets the summary as JSON on its standard input and in
        FLUXASYNC_SUMMARY.
    notify_url
        URL that gets the summary as JSON at the end of the run, by POST.
    """

    then: str | None = None
    on_finish: str | None = None
    notify_url: str | None = None
