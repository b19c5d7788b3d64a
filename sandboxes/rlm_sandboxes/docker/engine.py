"""The container engine: control calls, each in a worker thread, and what becomes of our containers.

Stands on Docker's own SDK, which is imported when an engine is first spoken to. Its errors become ours.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import os
import socket
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, TypeVar

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread

from ..errors import EngineUnavailable, ImageUnavailable, LibraryMissing, SandboxError, SandboxUnavailable
from .facts import Facts
from .near import Near, find
from .owners import OWNER, SERVER, is_dead
from .places import Keys, Place, find_place
from .streams import Attached
from .tunnels import Tunnel

T = TypeVar("T")

_CALLS_AT_ONCE = 16
_CALL_SECONDS = 60
_FIND_SECONDS = 15
_OLDEST = (1, 41)
_CLOSED = "ro,nosuid,nodev,noexec,size=4096"
_AGAIN_SECONDS = 1.0
_NOT_LET_IN = ("auth", "denied")
_ENDING, _MOST_TRIES, _ENDING_SECONDS = "container state improper", 20, 0.1
_ENDS = ("9", "15", "SIGKILL", "SIGTERM")
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
        self.made = False
        self.status: int | None = None
        self.times_out_of_memory = 0
        self.asked_to_end = False
        self.ended = anyio.Event()
        self.removed = anyio.Event()


class Engine:
    """An engine that answers. `find_engine` finds one."""

    def __init__(self, client: Any, facts: Facts, server: str, tunnel: Tunnel | None = None) -> None:
        self.facts = facts
        self._tunnel = tunnel
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
                before = [name for name, fate in self._fates.items() if fate.made]
                events = await self._call(listen)
                filters = {"label": f"{SERVER}={self._server}"}
                found = await self._call(partial(self._client.containers, all=True, filters=filters))
                there = {str(name).lstrip("/") for container in found for name in container["Names"] or ()}
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
            fate.times_out_of_memory += 1
        elif action == "kill" and event.get("signal") in _ENDS:
            fate.asked_to_end = True
        elif action in ("die", "died"):
            code = str(event.get("exitCode", event.get("containerExitCode", "")))
            fate.status = int(code) if code.isdigit() else None
            fate.ended.set()
        elif action in ("destroy", "remove"):
            fate.ended.set()
            fate.removed.set()

    # ---- containers

    async def create(self, name: str, config: dict[str, Any]) -> Fate:
        """Create a container. Its first process has its name among its arguments, by which that is known."""
        fate = self._fates[name] = Fate()
        image: dict[str, Any] = await self._call(partial(self._client.inspect_image, config["Image"]))
        described: dict[str, Any] = image.get("Config") or {}
        volumes: dict[str, Any] = described.get("Volumes") or {}
        named = {
            **config,
            "Cmd": [name],
            "HostConfig": _close_volumes(config, volumes, podman=self.facts.podman),
        }
        await self._call(partial(self._client.create_container_from_config, named, name))
        fate.made = True
        return fate

    async def attach(self, name: str) -> Attached:
        """Return the stream to and from a container, which does not run yet."""
        wanted = {"stdin": 1, "stdout": 1, "stderr": 0, "stream": 1}
        attach = partial(self._client.attach_socket, name, params=wanted)
        return await self._call(lambda: Attached(attach()))

    async def attach_aside(self, name: str) -> Any:
        """Return the stream of what a container writes to its standard error, as the SDK gives it."""
        wanted = {"stdin": 0, "stdout": 0, "stderr": 1, "stream": 1}
        return await self._call(partial(self._client.attach_socket, name, params=wanted))

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
        """Return what a container uses; nothing where it is just about to go, of which engines say nothing at all."""

        def look() -> dict[str, Any]:
            try:
                found: dict[str, Any] = self._client.stats(name, stream=False, one_shot=True)
            except ValueError:
                return {}
            return found

        return await self._call(look)

    async def find_near(self, name: str) -> Near | None:
        """Return the processes of a container, if they are on this machine and ours to signal."""
        return None if self.facts.remote else await self._call(partial(self._find_near, name))

    def _find_near(self, name: str) -> Near | None:
        facts = self._client.inspect_container(name)
        return find(int(facts["State"]["Pid"]), name)

    async def put(self, name: str, folder: str, archive: IO[bytes]) -> None:
        """Unpack a tar archive into a folder of a container that does not run yet."""
        await self._call(partial(self._client.put_archive, name, folder, archive))

    async def remove(self, name: str, fate: Fate | None = None, *, seconds: float = 10.0) -> None:
        """Remove a container with all that it has, whatever it does."""
        try:
            answer = await self._remove(name)
            if answer.refused and fate is not None and answer.status != 404:
                with anyio.move_on_after(seconds):
                    await fate.removed.wait()
        finally:
            self._fates.pop(name, None)

    async def _remove(self, name: str) -> _Answer:
        """Remove a container; once more where it was just about to end by itself, which confuses Podman."""
        tries = 1
        while True:
            try:
                with _unless_gone() as answer:
                    await self._call(partial(self._client.remove_container, name, v=True, force=True))
            except Refused as problem:
                if _ENDING not in problem.reason or tries == _MOST_TRIES:
                    raise
                tries += 1
                await anyio.sleep(_ENDING_SECONDS)
            else:
                return answer

    async def find_dead(self) -> dict[str, bool]:
        """Return the containers whose owners are gone, and whether each still runs."""
        found = await self._call(partial(self._client.containers, all=True, filters={"label": OWNER}))
        return {
            str(container["Names"][0]).lstrip("/"): container["State"] == "running"
            for container in found
            if container["Names"]  # one that is about to go has none
            and await anyio.to_thread.run_sync(is_dead, container["Labels"].get(OWNER, ""))
        }

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
            if any(word in problem for word in _NOT_LET_IN):
                advice = f"If it is there, run `docker login {_registry_of(name)}` as this user. {advice}"
            raise ImageUnavailable(image, f"it could not be fetched: {_short(problem)}", advice) from cause

    async def _call(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(
            partial(_translated, self.facts.address, call), limiter=self._limiter
        )

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._client.close)
            if self._tunnel is not None:
                await anyio.to_thread.run_sync(self._tunnel.close)


async def find_engine(address: str | None, server: str) -> Engine:
    """Find an engine, at `address` or where Docker's own command would. Its containers are labelled for `server`."""
    return await anyio.to_thread.run_sync(_find, address, server)


def _find(address: str | None, server: str) -> Engine:
    try:
        importlib.import_module("docker")
    except ImportError as problem:
        raise LibraryMissing("docker", "docker") from problem
    place = find_place(address, os.environ)
    if not place.address.startswith("ssh://"):
        return Engine(*_connect(place, place.address), server)
    with contextlib.ExitStack() as stack:
        tunnel = Tunnel(place.address)
        stack.callback(tunnel.close)
        try:
            client, facts = _connect(place, tunnel.address)
        except EngineUnavailable as problem:
            words = tunnel.last_words()
            reason = f"ssh says: {_short(words)}" if words else problem.reason
            raise EngineUnavailable(place.address, reason, _BY_SSH) from problem
        stack.pop_all()
    return Engine(client, facts, server, tunnel)


def _connect(place: Place, address: str) -> tuple[Any, Facts]:
    """Return a client of the engine that answers at `address`, and what there is to know of it."""
    docker: Any = importlib.import_module("docker")
    _try(address)
    options: dict[str, Any] = {"base_url": address, "version": "auto", "timeout": _FIND_SECONDS}
    if place.keys is not None:
        options["tls"] = _tls(docker, place.keys, address)
    try:
        client = _translated(place.address, lambda: docker.APIClient(**options))
    except EngineUnavailable as problem:
        if place.keys is None and place.address.startswith("tcp:"):
            raise EngineUnavailable(place.address, problem.reason, _MAYBE_TLS + _START) from problem
        raise
    try:
        info: dict[str, Any] = _translated(place.address, client.info)
        if tuple(int(part) for part in client.api_version.split(".")) < _OLDEST:
            reason = f"it speaks API {client.api_version}, and 1.41 is the oldest that works"
            raise EngineUnavailable(place.address, reason, _UPDATE)
    except BaseException:
        client.close()
        raise
    client.timeout = _CALL_SECONDS
    if address != place.address:
        _share_connections(client)
    return client, _facts(place, info)


def _share_connections(client: Any) -> None:
    """Have one set of connections for all calls: the SDK has one for each address, and each would be an ssh."""
    adapter = client._custom_adapter
    shared = adapter.get_connection("http+docker://localhost")

    def share(*_: object, **__: object) -> Any:
        return shared

    adapter.get_connection = adapter.get_connection_with_tls_context = share


def _tls(docker: Any, keys: Keys, address: str) -> Any:
    """Return what the SDK takes for TLS. A named authority is the only one, whatever is set for `requests`."""
    proxies: Any = importlib.import_module("requests.utils").get_environ_proxies

    class Exactly(docker.tls.TLSConfig):  # type: ignore[misc]
        def configure_client(self, client: Any) -> None:
            docker.tls.TLSConfig.configure_client(self, client)
            if keys.authority is not None:
                client.proxies, client.trust_env = proxies(address.replace("tcp://", "https://")), False

    authority = None if keys.authority is None else str(keys.authority)
    certificate = keys.certificate and tuple(str(path) for path in keys.certificate)
    return Exactly(client_cert=certificate, ca_cert=authority, verify=keys.verify)


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


def _facts(place: Place, info: dict[str, Any]) -> Facts:
    security = [str(option) for option in info.get("SecurityOptions") or ()]
    podman, rootless = "BuildahVersion" in info, any("rootless" in option for option in security)
    rootless = rootless or bool(info.get("Rootless"))
    ignored = podman and rootless and str(info.get("CgroupVersion")) == "1"
    return Facts(
        address=place.address,
        version=str(info.get("ServerVersion", "")),
        remote=place.remote,
        rootless=rootless,
        remapped=any("userns" in option for option in security),
        runtimes=tuple(info.get("Runtimes") or ()),
        default_runtime=str(info.get("DefaultRuntime", "runc")),
        cpu_limits=bool(info.get("CpuCfsQuota", info.get("CPUCfsQuota", True))) and not ignored,
        task_limits=bool(info.get("PidsLimit", True)) and not ignored,
        podman=podman,
    )


_START = "Start Docker or Podman there, name another one by DOCKER_HOST, or use the 'local' sandbox."
_MAYBE_TLS = "If it wants TLS, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH. "
_UPDATE = "Update it (Docker 20.10 or newer, Podman 4 or newer), or name another one by DOCKER_HOST."
_BY_SSH = "Have `ssh` reach it as this user, without a question, and `docker` be installed there."
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
            raise SandboxUnavailable(
                f"The address {address!r} of the container engine cannot be used: {_short(str(problem))}. "
                "DOCKER_HOST or docker_host takes unix:///path, tcp://host:port or ssh://user@host."
            ) from problem
        raise EngineUnavailable(address, _reason(problem), _START) from problem


def _reason(problem: BaseException) -> str:
    """Return why an engine did not answer, without what the libraries in between have to say."""
    requests: Any = importlib.import_module("requests.exceptions")
    links: list[BaseException] = [problem]
    while (below := links[-1].__cause__ or links[-1].__context__) is not None:
        links.append(below)
    for link in links:
        if isinstance(link, ssl.SSLError):
            return f"TLS fails: {getattr(link, 'verify_message', '') or link.reason or link}"
        if isinstance(link, (ConnectionRefusedError, FileNotFoundError)):
            return "none answers there"
        if isinstance(link, (TimeoutError, requests.Timeout)):
            return "it does not answer in time"
        if isinstance(link, socket.gaierror):
            return f"no machine of that name is known: {link.strerror}"
        if isinstance(link, http.client.RemoteDisconnected):
            return "it closed the connection without an answer"
    return _short(str(problem))


def _is_connection(problem: BaseException) -> bool:
    return "fetching server API version" in str(problem)


def _stop(events: Any) -> None:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        events.close()
    with contextlib.suppress(OSError, AttributeError, ValueError):
        events._response.close()  # which holds on to the socket of TLS


def _close_volumes(config: dict[str, Any], volumes: Iterable[str], *, podman: bool) -> dict[str, Any]:
    """Return the host's part of a configuration in which the volumes of an image are empty and cannot be written to.

    They would lie on the engine's disk, where no limit of ours holds.
    """
    host: dict[str, Any] = config["HostConfig"]
    taken = {*host["Tmpfs"], *config["Volumes"], *(mount["Target"] for mount in host["Mounts"])}
    options = _CLOSED + (",notmpcopyup" if podman else "")
    return {**host, "Tmpfs": {**{path: options for path in volumes if path not in taken}, **host["Tmpfs"]}}


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


def _registry_of(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash and (set(".:") & set(first) or first == "localhost") else "docker.io"


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 400 else text[:400] + " ..."
