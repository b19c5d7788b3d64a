"""The Docker engine that tests use, as the environment names it.

`scripts/test` sets it up. A test that needs it and does not find it fails: a skip would hide that nothing was tried.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_HOSTS = ("RLM_TEST_DOCKER_HOST", "DOCKER_HOST")
_IMAGE = "RLM_TEST_DOCKER_IMAGE"


class NoEngine(Exception):
    """The environment does not name what the tests of Docker need."""

    def __init__(self, missing: str) -> None:
        self.missing = missing
        super().__init__(
            f"This test needs a Docker engine with an image that holds Python, and {missing} is not set. "
            "Run the tests with scripts/test: it finds an engine, or starts one where root runs it, makes the image, and tells "
            "the tests of both. Where it finds none, its first lines say why; CONTRIBUTING.md has the rest."
        )


@dataclass(frozen=True)
class Engine:
    """Where an engine answers, and an image in it that holds Python."""

    host: str
    image: str


def engine_of(environment: Mapping[str, str] = os.environ) -> Engine:
    """Return the engine that the environment names, or raise `NoEngine`."""
    host = next((environment[name] for name in _HOSTS if environment.get(name)), "")
    if not host:
        raise NoEngine(" or ".join(_HOSTS))
    if not environment.get(_IMAGE):
        raise NoEngine(_IMAGE)
    return Engine(host, environment[_IMAGE])
