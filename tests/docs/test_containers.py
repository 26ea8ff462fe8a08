"""Dockerfile and compose.yaml, read without Docker: what they name is there, no root runs it."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml", reason="the extra `data` is not installed")
pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

import yaml

from fluxasync._cli.app import app
from fluxasync.simulator import Scenario

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
#: words of a Dockerfile that this file has
WORDS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order; continued lines are joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def parsed(words: list[str]) -> tuple[Any, dict[str, Any]]:
    """The command and the arguments of a command line; an unknown option is an error."""
    command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    return command, bound.arguments


def test_the_image_is_slim_and_not_root() -> None:
    """The last stage is a slim Python that the package supports, without sources and compilers,
    and its command runs as a numbered user."""
    found = instructions()
    assert {word for word, _ in found} <= WORDS
    stages = [index for index, (word, _) in enumerate(found) if word == "FROM"]
    last = dict(found[stages[-1] :])
    images = {rest.split()[0] for word, rest in found if word == "FROM"}
    (image,) = images
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]
    assert last["USER"].isdecimal()
    assert int(last["USER"]) >= 1000
    assert last["ENTRYPOINT"] == '["fluxasync"]'
    assert "pip" not in last["RUN"]
    order = [word for word, _ in found[stages[-1] :]]
    assert order.index("RUN") < order.index("USER") < order.index("ENTRYPOINT")


def test_what_the_image_is_built_of_exists() -> None:
    """Sources and extras are there, and the folder that is sent to the builder has no keys."""
    copied = [rest.split() for word, rest in instructions() if word == "COPY"]
    sources = [name for words in copied for name in words[:-1] if words[0] != "--from=build"]
    assert sources
    assert [name for name in sources if not (ROOT / name).exists()] == []
    (install,) = (rest for word, rest in instructions() if "pip install" in rest)
    extras = re.search(r"\.\[([\w,]+)\]", install)
    assert extras is not None
    assert {"cli", "image", "speed", "store"} == set(extras[1].split(","))
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    # hatchling reads what pyproject.toml names
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert kept == {name.rstrip("/") for name in sources}


def test_the_commands_of_compose_are_commands() -> None:
    """Each service's command parses; the run reaches the simulator at its name and port."""
    services = COMPOSE["services"]
    serve, served = parsed(services["simulator"]["command"])
    assert serve.__name__ == "simulate"
    Scenario.parse(latency=served["latency"])
    run, given = parsed(services["run"]["command"])
    assert run.__name__ == "run"
    options = given["options"]
    assert options.common.base_url == f"http://simulator:{served['port']}"
    assert options.common.allow_private_network  # http to a name without a dot
    assert options.common.provider_named is not None
    assert (ROOT / given["source"]).exists()
    ports = [str(served["port"] + offset) for offset in range(3)]
    assert services["simulator"]["expose"] == ports
    assert served["host"] == "0.0.0.0"  # noqa: S104 — in a container
    assert services["run"]["depends_on"]["simulator"]["condition"] == "service_healthy"
    probe = services["simulator"]["healthcheck"]["test"]
    compile(probe[-1], "compose.yaml", "exec")
    assert f":{served['port']}/simulator/ledger" in probe[-1]
    grace = services["run"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > options.grace


def test_the_lines_of_the_comments_are_commands() -> None:
    """What the comments say to type is understood by the command."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n#", "")
    (line,) = re.findall(r"docker run .*", text)
    words = shlex.split(line)
    run, given = parsed(words[words.index("fluxasync") + 1 :])
    assert (run.__name__, given["options"].max_cost) == ("run", "5")
    comments = (ROOT / "compose.yaml").read_text("utf-8")
    (service,) = re.findall(r"docker compose run --rm (\w+)", comments)
    assert service in COMPOSE["services"]
