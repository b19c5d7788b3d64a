"""The container engine: control calls, each in a worker thread, and what becomes of our containers.

Stands on Docker's own SDK, which is imported when an engine is first spoken to. Its errors become ours.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread

from ..errors import EngineUnavailable, ImageUnavailable, LibraryMissing, SandboxError, SandboxUnavailable
from .facts import Facts
from .near import Near, find
from .owners import OWNER, SERVER, is_dead
from .streams import Attached

T = TypeVar("T")

_CALLS_AT_ONCE = 16
_CALL_SECONDS = 60
_POOLS = 4  # the SDK keeps one for each address within the engine, and so for each container and call
_AGAIN_SECONDS = 1.0
_GONE = (404, 409)  # it is removed, or about to be

OnProgress = Callable[[str], None]


class Refused(SandboxError):
    """The engine refused a call, and says why."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(f"The container engine refused: {reason}")


class Fate:
    """What became of one container."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.out_of_memory = False
        self.ended = anyio.Event()
        self.removed = anyio.Event()


class Engine:
    """An engine that answers. `find_engine` finds one."""

    def __init__(self, client: Any, facts: Facts, server: str) -> None:
        self.facts = facts
        self._client = client
        self._server = server
        self._limiter = anyio.CapacityLimiter(_CALLS_AT_ONCE)
        self._fates: dict[str, Fate] = {}

    # ---- what becomes of containers

    async def follow(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Take note of what becomes of our containers, for ever."""
        filters = {"type": "container", "label": f"{SERVER}={self._server}"}
        listen = partial(self._client.events, decode=True, filters=filters)
        events = await self._call(listen)
        broken: Any = importlib.import_module("urllib3.exceptions").HTTPError
        nobody_listens = (RuntimeError, anyio.get_cancelled_exc_class())
        over = (*nobody_listens, broken, OSError, ValueError, AttributeError)
        task_status.started()
        while True:
            try:
                await anyio.to_thread.run_sync(
                    self._read_events, events, over, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_stop, events)
            events = await self._listen_again(listen)

    async def _listen_again(self, listen: Callable[[], Any]) -> Any:
        """Listen anew, as soon as the engine answers, and look which containers are gone by then."""
        while True:
            await anyio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(SandboxError):
                before = list(self._fates)
                events = await self._call(listen)
                filters = {"label": f"{SERVER}={self._server}"}
                found = await self._call(partial(self._client.containers, all=True, filters=filters))
                there = {str(name).lstrip("/") for container in found for name in container["Names"]}
                for name in before:
                    if name not in there:
                        self._note({"Action": "die", "name": name})
                        self._note({"Action": "destroy", "name": name})
                return events

    def _read_events(self, events: Iterable[dict[str, Any]], over: tuple[type[BaseException], ...]) -> None:
        with contextlib.suppress(*over):
            for event in events:
                facts = event.get("Actor", {}).get("Attributes", {})
                anyio.from_thread.run_sync(self._note, {"Action": event.get("Action"), **facts})

    def _note(self, event: dict[str, Any]) -> None:
        fate = self._fates.get(event.get("name", ""))
        if fate is None:
            return
        action = event["Action"]
        if action == "oom":
            fate.out_of_memory = True
        elif action in ("die", "died"):
            code = str(event.get("exitCode", event.get("containerExitCode", "")))
            fate.status = int(code) if code.isdigit() else None
            fate.ended.set()
        elif action in ("destroy", "remove"):
            fate.ended.set()
            fate.removed.set()

    # ---- containers

    async def create(self, name: str, config: dict[str, Any]) -> Fate:
        """Create a container."""
        fate = self._fates[name] = Fate()
        await self._call(partial(self._client.create_container_from_config, config, name))
        return fate

    async def attach(self, name: str) -> Attached:
        """Return the stream to and from a container, which does not run yet."""
        return await self._call(partial(self._attach, name))

    def _attach(self, name: str) -> Attached:
        wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        return Attached(self._client.attach_socket(name, params=wanted))

    async def start(self, name: str) -> None:
        await self._call(partial(self._client.start, name))

    async def signal(self, name: str, signal: str) -> None:
        """Send a signal to the first process of a container, if it is there."""
        with _unless_gone():
            await self._call(partial(self._client.kill, name, signal))

    async def pause(self, name: str) -> None:
        with _unless_gone():
            await self._call(partial(self._client.pause, name))

    async def unpause(self, name: str) -> None:
        with _unless_gone():
            await self._call(partial(self._client.unpause, name))

    async def stats(self, name: str) -> dict[str, Any]:
        look = partial(self._client.stats, name, stream=False, one_shot=True)
        found: dict[str, Any] = await self._call(look)
        return found

    async def find_near(self, name: str) -> Near | None:
        """Return the processes of a container, if they are on this machine and ours to signal."""
        return None if self.facts.remote else await self._call(partial(self._find_near, name))

    def _find_near(self, name: str) -> Near | None:
        facts = self._client.inspect_container(name)
        return find(int(facts["State"]["Pid"]), str(facts["Id"]))

    async def put(self, name: str, folder: str, archive: bytes) -> None:
        """Unpack a tar archive into a folder of a container that does not run yet."""
        await self._call(partial(self._client.put_archive, name, folder, archive))

    async def remove(self, name: str, fate: Fate | None = None, *, seconds: float = 10.0) -> None:
        """Remove a container with all that it has, whatever it does."""
        try:
            with _unless_gone() as answer:
                await self._call(partial(self._client.remove_container, name, v=True, force=True))
            if answer.refused and fate is not None and answer.status != 404:
                with anyio.move_on_after(seconds):
                    await fate.removed.wait()
        finally:
            self._fates.pop(name, None)

    async def reap(self) -> list[str]:
        """Remove the containers whose owners are gone; return their names."""
        found = await self._call(partial(self._client.containers, all=True, filters={"label": OWNER}))
        names = [
            str(container["Names"][0]).lstrip("/")
            for container in found
            if await anyio.to_thread.run_sync(is_dead, container["Labels"].get(OWNER, ""))
        ]
        for name in names:
            await self.remove(name)
        return names

    # ---- images

    async def pull(self, image: str, on_progress: OnProgress | None) -> None:
        """Fetch an image. Raise `ImageUnavailable` if it cannot be had."""
        advice = "Name another one, or build or load one of that name on the engine."
        name, tag = _split(image)

        def pull() -> str:
            problem = ""
            lines: Iterator[dict[str, Any]] = self._client.pull(name, tag=tag, stream=True, decode=True)
            for line in lines:  # to the end, so that the connection is given back
                problem = problem or str(line.get("error", ""))
                if on_progress is not None and line.get("status"):
                    words = (line.get("id", ""), line["status"], line.get("progress", ""))
                    anyio.from_thread.run_sync(on_progress, " ".join(word for word in words if word))
            return problem

        cause: Refused | None = None
        try:
            problem = await self._call(pull)
        except Refused as refused:
            problem, cause = refused.reason, refused
        if problem:
            raise ImageUnavailable(image, f"it could not be fetched: {_short(problem)}", advice) from cause

    async def _call(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(
            partial(_translated, self.facts.address, call), limiter=self._limiter
        )

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._client.close)


async def find_engine(address: str | None, server: str) -> Engine:
    """Find an engine, at `address` or where Docker's own command would. Its containers are labelled for `server`."""
    return await anyio.to_thread.run_sync(_find, address, server)


def _find(address: str | None, server: str) -> Engine:
    try:
        docker: Any = importlib.import_module("docker")
    except ImportError as problem:
        raise LibraryMissing("docker", "docker") from problem
    where = address or "its usual place"
    try:
        options = _options(docker, address)
        where = options.get("base_url") or "unix:///var/run/docker.sock"
        _try(where)
        ssh = where.startswith("ssh://")
        client = _translated(
            where,
            lambda: docker.APIClient(
                version="auto", timeout=_CALL_SECONDS, num_pools=_POOLS, use_ssh_client=ssh, **options
            ),
        )
        info: dict[str, Any] = _translated(where, client.info)
    except docker.errors.DockerException as problem:
        raise EngineUnavailable(where, _short(str(problem)), _START) from problem
    return Engine(client, _facts(where, info), server)


def _try(address: str) -> None:
    """Say what is wrong with a socket of this machine, which the SDK does not tell apart."""
    scheme, _, path = address.rpartition("://")
    if scheme not in ("unix", "http+unix"):
        return
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except PermissionError as problem:
        raise EngineUnavailable(address, "this user may not use it", _LET_IN) from problem
    except OSError as problem:
        raise EngineUnavailable(address, "none answers there", _START) from problem


def _options(docker: Any, address: str | None) -> dict[str, Any]:
    """Return how to reach the engine: named, by the environment, by Docker's current context, or as ever."""
    options: dict[str, Any] = docker.utils.kwargs_from_env()
    if address is not None:
        return {**options, "base_url": address}
    if "base_url" in options:
        return options
    context = importlib.import_module("docker.context").ContextAPI.get_current_context()
    if context is None or context.Name == "default":
        return options
    found: dict[str, Any] = {"base_url": context.Host}
    if context.TLSConfig is not None:
        found["tls"] = context.TLSConfig
    return found


def _facts(address: str, info: dict[str, Any]) -> Facts:
    security = [str(option) for option in info.get("SecurityOptions") or ()]
    return Facts(
        address=address,
        version=str(info.get("ServerVersion", "")),
        remote=not address.startswith(("unix:", "http+unix:", "npipe:", "/")),
        rootless=any("rootless" in option for option in security),
        remapped=any("userns" in option for option in security),
        runtimes=tuple(info.get("Runtimes") or ()),
        default_runtime=str(info.get("DefaultRuntime", "runc")),
        cpu_limits=bool(info.get("CpuCfsQuota", info.get("CPUCfsQuota", True))),
    )


_START = "Start Docker or Podman there, name another one by DOCKER_HOST, or use the 'local' sandbox."
_LET_IN = "Let this user use it (for Docker: add it to the group 'docker' and log in again), or use rootless Docker."


def _translated(address: str, call: Callable[[], T]) -> T:
    """Return what a call of the SDK returns, and raise our errors in place of its own."""
    errors: Any = importlib.import_module("docker.errors")
    requests: Any = importlib.import_module("requests.exceptions")
    try:
        return call()
    except errors.APIError as problem:
        if problem.response is not None:
            problem.response.close()
        raise Refused(problem.status_code or 0, str(problem.explanation or problem)) from problem
    except (requests.RequestException, errors.DockerException) as problem:
        if isinstance(problem, errors.DockerException) and not _is_connection(problem):
            if "paramiko" in str(problem):
                raise LibraryMissing("docker", "paramiko") from problem
            raise SandboxUnavailable(f"Docker's SDK cannot do that: {_short(str(problem))}.") from problem
        raise EngineUnavailable(address, _short(str(problem)), _START) from problem


def _is_connection(problem: BaseException) -> bool:
    return "fetching server API version" in str(problem)


def _stop(events: Any) -> None:
    try:
        events.close()
    except UnboundLocalError:  # the SDK does not know how to where it reads from an ssh of its own
        events._response.raw._fp.fp.channel.proc.kill()
    except (OSError, AttributeError, ValueError):
        pass


class _Answer:
    def __init__(self) -> None:
        self.refused = False
        self.status = 0


@contextmanager
def _unless_gone() -> Generator[_Answer, None, None]:
    """Pass over that a container is gone, or about to be."""
    answer = _Answer()
    try:
        yield answer
    except Refused as problem:
        if problem.status not in _GONE and "is not running" not in problem.reason:
            raise
        answer.refused, answer.status = True, problem.status


def _split(image: str) -> tuple[str, str | None]:
    """Return the name and the tag; what has a digest is named whole."""
    if "@" in image:
        return image, None
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 400 else text[:400] + " ..."
