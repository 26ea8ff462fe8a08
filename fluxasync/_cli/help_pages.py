"""The groups of the commands in `fluxasync --help`, and the examples at the end of each page."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from cyclopts import Group

_MAKE = Group("Make images", sort_key=1)
_LOOK = Group("Look at a run", sort_key=2)
_MONEY = Group("Account and money", sort_key=3)
_TRY = Group("Try and measure", sort_key=4)
#: of help, version and completion
OTHERS = Group("Others", sort_key=5)

#: command → its group and its examples: what it is for, and the line
PAGES: dict[str, tuple[Group, tuple[tuple[str, str], ...]]] = {
    "run": (
        _MAKE,
        (
            ("for nothing, on the simulator", "run prompts.txt -o try --simulate"),
            ("the price first", "run prompts.txt -o images --dry-run"),
            ("then the images; again to continue", "run prompts.txt -o images --max-cost 5"),
            (
                "a table's columns as prompt and file name",
                "run shop.csv -o shop --prompt '{colour} {item}' --name '{sku}.{ext}'",
            ),
            (
                "each prompt with four seeds and two models",
                "run prompts.txt -o grid --seeds 1..4 --models flux-dev,flux-pro-1.1",
            ),
        ),
    ),
    "generate": (
        _MAKE,
        (
            ("one image", 'generate "a red fox in snow" -o fox.jpg'),
            (
                "with parameters of the model",
                'generate "a lamp" -o lamp.png --param width=1024 --param seed=7',
            ),
        ),
    ),
    "resume": (_MAKE, (("what the folder's last line began", "resume images"),)),
    "ctl": (
        _MAKE,
        (
            ("hold the run of another terminal", "ctl images pause"),
            ("go on with fewer jobs at once", "ctl images limit 12"),
            ("watch it", "ctl images top"),
        ),
    ),
    "status": (
        _LOOK,
        (
            ("also while it runs", "status images"),
            ("with what is left on the account", "status images --account"),
        ),
    ),
    "gallery": (
        _LOOK,
        (
            ("a page in the folder", "gallery images"),
            ("a copy that can be moved", "gallery images -o page"),
        ),
    ),
    "report": (_LOOK, (("cost, failures, pace and slots on one page", "report images"),)),
    "verify": (_LOOK, (("every file against its record", "verify images"),)),
    "export": (
        _LOOK,
        (
            ("shards for training", "export images --to webdataset --shard 500MB"),
            ("a table", "export images --to csv"),
        ),
    ),
    "doctor": (
        _MONEY,
        (
            ("the line of the run, with doctor for run", "doctor prompts.txt -o images"),
            ("key, balance and network alone", "doctor"),
        ),
    ),
    "credits": (
        _MONEY,
        (
            ("what is left", "credits"),
            ("of several accounts, for a program", "credits --accounts accounts.toml --json"),
        ),
    ),
    "bill": (_MONEY, (("the journal against the provider's figures", "bill images"),)),
    "resolve": (
        _MONEY,
        (
            ("what is in doubt", "resolve images"),
            ("look for it in the account, for nothing", "resolve images --reconcile"),
            ("pay again, up to a dollar", "resolve images --resubmit --max-cost 1"),
        ),
    ),
    "simulate": (
        _TRY,
        (
            ("for a program's tests", "simulate --port 8787 --latency 0.5..2"),
            ("with faults", "simulate --fault 429:0.2 --fault lost-reply:0.05"),
        ),
    ),
    "bench": (
        _TRY,
        (
            ("at one load, for nothing", "bench --simulate --in-flight 8 --images 40"),
            ("two reports", "bench compare before after"),
        ),
    ),
    "models": (_TRY, (("the list", "models"), ("against BFL's document", "models --check"))),
    "--install-completion": (OTHERS, (("for this terminal's shell", "--install-completion"),)),
}


GROUPS = {name: group for name, (group, _) in PAGES.items()}
#: the places of the commands in their groups
ORDER = {name: place for place, name in enumerate(PAGES)}

#: the text of commands whose modules are imported only when they run
_TEXTS = {
    "bench": "Measure how fast a model goes on your account, at what latency and price.",
    "doctor": """
        Check key, balance, network, clock, list and disk before a run. Free; makes no image.

        Takes the line of a run, with doctor in place of run. A line that is not ok has its next
        step below it.

        Exit code: the one with which the run would end. 0: nothing stands in its way. 2: the list,
        an option or the key is missing or wrong. 6: the key is refused, or the balance is less than
        the price. 7: the folder or the bucket cannot be written, or is too small. 8: the folder has
        a run. 9: the provider is not reached.
        """,
    "credits": """
        Show what is left on the account, in US dollars. Free.

        Exit code 0: the balance is shown. 6: the key is refused. 9: the provider is not reached.
        """,
    "ctl": """
        Control a run of another terminal: pause, resume, limit N, budget X or top.

        pause submits nothing more, and paid jobs land; resume goes on. limit changes the number of
        active jobs (N or auto), budget the most that may be spent in the folder, in US dollars (X
        or none). top shows slots, pace, money and jobs until Ctrl-C, or once as JSON if its output
        is no terminal. Nothing of it is kept: the next run begins with the options of its own
        command.

        Exit code 0: done. 2: no run is active, or it refuses. 9: the run does not answer.
        """,
    "--install-completion": """
        Install completion of commands and options for your shell.

        It writes the script where the shell looks for it, and a line into ~/.bashrc or ~/.zshrc.
        """,
}


def lazy(name: str) -> dict[str, Any]:
    """Return the arguments of a command whose module is imported when it runs. One that is an App
    has its examples itself."""
    given = {"name": name, "help": cleandoc(_TEXTS[name]), "group": GROUPS[name]}
    given["sort_key"] = ORDER[name]
    return given if name == "bench" else given | {"help_epilogue": examples(name)}


def examples(name: str) -> str:
    """Return the examples of a command, as the end of its help."""
    lines = (f"  # {purpose}\n  fluxasync {line}" for purpose, line in PAGES[name][1])
    return "\n".join(("Examples:", "", *lines))
