"""The family `rlm://trajectories`: what happened in runs, also in those that go on.

A trajectory is looked for among what is kept of this tenant's projects and nowhere else, so to know the id of
one of somebody else's is worth nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio.to_thread
from mcp_types import Annotations, ReadResourceResult, Resource, ResourceTemplate, TextResourceContents

from . import addresses
from .addresses import Address
from .app import App, Change
from .known import root_folder
from .tenants import Tenant
from .trajectory_places import folders_of

if TYPE_CHECKING:
    from rlm_runtime import Event, Summary, Trajectory

JSON = "application/json"
LISTED = 20
CHARACTERS, MOST_CHARACTERS = 50_000, 100_000
ANSWER_CHARACTERS = 4 * 1024 * 1024

_ON_A_PAGE, _MOST_ON_A_PAGE = 50, 200
_EVENTS, _MOST_EVENTS = 50, 200
_SHOWN_CHARACTERS = 400
_MOST_COMPLETED = 200
_FIRST = ("~", "")  # the place of the list itself: before all, for later ones come first
_GONE = "no trajectory of that id is kept"
_NO_ANSWER = "this run has no answer, or not yet"
_FORMS = (
    "there are rlm://trajectories, rlm://trajectories/ID, rlm://trajectories/ID/answer and "
    "rlm://trajectories/ID/events/N"
)


class TrajectoryFamily:
    """What can be read of the runs of a tenant."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def listed(
        self, tenant: Tenant, after: tuple[Any, ...] | None, count: int, most: int
    ) -> Sequence[tuple[tuple[Any, ...], Resource]]:
        """Return the list of all, if there are any, and then the newest."""
        folders = await self._folders(tenant)
        room = min(most, max(0, LISTED + 1 - count))
        return await anyio.to_thread.run_sync(_listed, folders, after, room)

    async def _folders(self, tenant: Tenant) -> list[Path]:
        root = await root_folder(self._app, tenant)
        return await anyio.to_thread.run_sync(folders_of, self._app.settings, tenant, root)

    def templates(self) -> Sequence[ResourceTemplate]:
        """Return how to page, and how to ask for one event."""
        return _TEMPLATES

    async def subject(self, tenant: Tenant, address: Address) -> str:
        """Return under which URI changes of a resource are told. An event never changes."""
        id_, number = _parts(address)
        if id_:
            await anyio.to_thread.run_sync(_path, await self._folders(tenant), address, id_)
        return (
            addresses.write(*address.path)
            if number is not None or _is_answer(address)
            else trajectory_uri(id_)
        )

    async def complete(self, tenant: Tenant, argument: str, value: str) -> Sequence[str]:
        """Return the ids that begin with `value`, newest first."""
        if argument != "id":
            return []
        placed = await anyio.to_thread.run_sync(_placed, await self._folders(tenant))
        return [path.stem for _, path in placed if path.stem.startswith(value)][:_MOST_COMPLETED]

    async def read(self, tenant: Tenant, address: Address) -> ReadResourceResult:
        """Return what is at an address, as JSON."""
        id_, number = _parts(address)
        folders = await self._folders(tenant)
        if _is_answer(address):
            mime, text = await anyio.to_thread.run_sync(_answer, folders, address, id_)
            return _result(address, mime, text)
        if number is not None:
            text = await anyio.to_thread.run_sync(_event, folders, address, id_, number)
        else:
            tell = _one if id_ else _index
            told = await anyio.to_thread.run_sync(tell, folders, address, id_)
            text = json.dumps(told, ensure_ascii=False, indent=1)
        return _result(address, JSON, text)


def _result(address: Address, mime: str, text: str) -> ReadResourceResult:
    contents = TextResourceContents(uri=address.uri, mime_type=mime, text=addresses.printable(text))
    return ReadResourceResult(contents=[contents], ttl_ms=0, cache_scope="private")


def answer_uri(id_: str) -> str:
    """Return the URI of the answer of a run."""
    return addresses.write("trajectories", id_, "answer")


def trajectory_uri(id_: str = "") -> str:
    """Return the URI of a trajectory, or of the list of them."""
    return addresses.write("trajectories", *([id_] if id_ else []))


def telling(app: App, tenant: Tenant) -> Callable[[Event], Awaitable[None]]:
    """Return what listens to a log, and has those told of its events who want to hear of them."""

    async def tell(event: Event) -> None:
        uri = trajectory_uri(event["trajectory_id"])
        if event["n"] == 1:
            await app.changed(Change(tenant, "", "listed"))
        await app.changed(Change(tenant, uri, "updated"))

    return tell


def _parts(address: Address) -> tuple[str, int | None]:
    """Return which trajectory is meant, and which event of it."""
    match address.path:
        case (_,):
            return "", None
        case (_, id_) | (_, id_, "answer"):
            return id_, None
        case (_, id_, "events", number) if number.isascii() and number.isdigit() and len(number) < 16:
            return id_, int(number)
        case _:
            raise addresses.no_resource(address.uri, _FORMS)


def _is_answer(address: Address) -> bool:
    return len(address.path) == 3


# ---- finding. All that follows blocks


def _placed(folders: Sequence[Path]) -> list[tuple[tuple[str, str], Path]]:
    """Return all trajectories, the newest first, each with its place in that order."""
    from rlm_runtime import placed_trajectories

    found = [((order, path.stem), path) for folder in folders for order, path in placed_trajectories(folder)]
    return sorted(found, key=lambda each: each[0], reverse=True)


def _is_past(after: tuple[Any, ...] | None, place: tuple[Any, ...]) -> bool:
    try:
        return after is None or place < after
    except TypeError:  # the cursor is made up
        return False


def _listed(
    folders: Sequence[Path], after: tuple[Any, ...] | None, room: int
) -> list[tuple[tuple[Any, ...], Resource]]:
    placed = _placed(folders)
    found: list[tuple[tuple[Any, ...], Resource]] = []
    if placed and after is None and room:
        found.append((_FIRST, _index_resource(len(placed))))
    for place, path in placed:
        if len(found) == room:
            break
        if _is_past(after, place) and (summary := _summary(path)) is not None:
            found.append((place, _resource(summary)))
    return found


def _summary(path: Path) -> Summary | None:
    from rlm_runtime import TrajectoryError, summary_of

    try:
        return summary_of(path)
    except (OSError, TrajectoryError):
        return None


def _path(folders: Sequence[Path], address: Address, id_: str) -> Path:
    found = next((path for _, path in _placed(folders) if path.stem == id_), None)
    if found is None:
        raise addresses.no_resource(address.uri, _GONE)
    return found


def _read(folders: Sequence[Path], address: Address, id_: str) -> Trajectory:
    from rlm_runtime import TrajectoryError, read_trajectory

    try:
        return read_trajectory(_path(folders, address, id_))
    except TrajectoryError as problem:
        raise addresses.no_resource(address.uri, str(problem)) from problem


# ---- telling


def _index(folders: Sequence[Path], address: Address, _: str) -> dict[str, Any]:
    address.only(("after", "limit"))
    limit = address.number("limit", _ON_A_PAGE, least=1, most=_MOST_ON_A_PAGE)
    placed = _placed(folders)
    rest = _behind(placed, address.query.get("after"))
    told: dict[str, Any] = {
        "trajectories": [_told(each) for _, path in rest[:limit] if (each := _summary(path)) is not None],
        "total": len(placed),
    }
    if len(rest) > limit:
        told["next"] = addresses.write("trajectories", after=rest[limit - 1][1].stem, limit=limit)
    return told


def _behind(
    placed: list[tuple[tuple[str, str], Path]], last: str | None
) -> list[tuple[tuple[str, str], Path]]:
    """Return those that come behind one; of one that is gone, by the time in its id."""
    if last is None:
        return placed
    place = next((place for place, path in placed if path.stem == last), (last.partition("-")[0], last))
    return [each for each in placed if each[0] < place]


def _told(summary: Summary) -> dict[str, Any]:
    facts = asdict(summary) | {"failed": summary.failed, "uri": trajectory_uri(summary.id)}
    del facts["path"]  # where it is kept is not for those who only read it
    return facts


def _one(folders: Sequence[Path], address: Address, id_: str) -> dict[str, Any]:
    address.only(("after", "limit"))
    limit = address.number("limit", _EVENTS, least=1, most=_MOST_EVENTS)
    after = address.number("after", 0)
    trajectory = _read(folders, address, id_)
    summary = _summary(trajectory.path)
    rest = [event for event in trajectory.events if event["n"] > after]
    told = {} if summary is None else _told(summary)
    told |= {
        "totals": asdict(trajectory.totals()),
        "events": [_brief(trajectory, each) for each in rest[:limit]],
    }
    if len(rest) > limit:
        told["next"] = addresses.write("trajectories", id_, after=rest[limit - 1]["n"], limit=limit)
    if trajectory.damaged:
        told["damaged_lines"] = trajectory.damaged
    return told


def _brief(trajectory: Trajectory, event: Event) -> dict[str, Any]:
    """Return an event with the beginnings of its texts, of a conversation only what is new in it."""
    facts = {name: value for name, value in event.items() if name not in ("schema", "trajectory_id")}
    brief: dict[str, Any] = _shortened(trajectory, facts)
    return brief | {"uri": addresses.write("trajectories", trajectory.id, "events", str(event["n"]))}


def _shortened(trajectory: Trajectory, value: Any) -> Any:
    from rlm_runtime import TrajectoryError

    if isinstance(value, list):
        return [_shortened(trajectory, each) for each in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, object]", value)
    if items.keys() != {"ref", "characters"}:
        return {key: _shortened(trajectory, each) for key, each in items.items()}
    try:
        text = trajectory.text(cast("int | str", items["ref"]))
    except TrajectoryError:
        return items
    return f"{text[:_SHOWN_CHARACTERS]}... [{len(text)} characters in all]"


def _event(folders: Sequence[Path], address: Address, id_: str, number: int) -> str:
    """Return an event as JSON, or a part of that if it is long."""
    from rlm_runtime import TrajectoryError

    address.only(("offset", "limit"))
    offset = address.number("offset", 0)
    limit = address.number("limit", CHARACTERS, least=1, most=MOST_CHARACTERS)
    trajectory = _read(folders, address, id_)
    try:
        text = json.dumps(trajectory.event(number), ensure_ascii=False)
    except TrajectoryError as problem:
        raise addresses.no_resource(address.uri, str(problem)) from problem
    if not offset and len(text) <= limit:
        return text
    end = min(offset + limit, len(text))
    more = addresses.write("trajectories", id_, "events", str(number), offset=end, limit=limit)
    following = f" The next: {more}" if end < len(text) else ""
    return f"{text[offset:end]}\n[Characters {offset} to {end} of {len(text)}.{following}]"


def _answer(folders: Sequence[Path], address: Address, id_: str) -> tuple[str, str]:
    """Return the answer of a run, or the part of it that is asked for, and nothing else."""
    address.only(("offset", "limit"))
    offset = address.number("offset", 0)
    limit = address.number("limit", ANSWER_CHARACTERS, least=1, most=ANSWER_CHARACTERS)
    trajectory = _read(folders, address, id_)
    if trajectory.ended is None:
        raise addresses.no_resource(address.uri, _NO_ANSWER)
    ended: Any = trajectory.whole(trajectory.ended)
    value = ended.get("value")
    text = str(ended.get("response", "")) if value is None else json.dumps(value, ensure_ascii=False)
    is_whole = not offset and len(text) <= limit
    return JSON if is_whole and value is not None else "text/plain", text[offset : offset + limit]


def _index_resource(count: int) -> Resource:
    return Resource(
        uri=trajectory_uri(),
        name="trajectories",
        title="All trajectories",
        description=f"The {count} runs of which it is kept what happened, newest first: state, cost, prompt.",
        mime_type=JSON,
        annotations=Annotations(audience=["user", "assistant"], priority=0.5),
    )


def _resource(summary: Summary) -> Resource:
    state = summary.finish if summary.state == "ended" else summary.state
    return Resource(
        uri=trajectory_uri(summary.id),
        name=f"trajectory-{summary.id}",
        title=addresses.printable(f"Run: {summary.title}" if summary.title else "Run"),
        description=f"What happened in a run ({state}): prompts, answers, code, outputs, cost.",
        mime_type=JSON,
        annotations=Annotations(audience=["user", "assistant"], last_modified=summary.last_at),
    )


_TEMPLATES = (
    ResourceTemplate(
        uri_template="rlm://trajectories{?after,limit}",
        name="trajectories-page",
        title="Trajectories, by page",
        description="Runs, newest first; `after` is the id of the last on the page before.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="rlm://trajectories/{id}{?after,limit}",
        name="trajectory",
        title="What happened in a run",
        description="State, totals and events, oldest first, with the beginnings of long texts; "
        "`after` is the `n` of the event before. It changes while the run goes on.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="rlm://trajectories/{id}/answer{?offset,limit}",
        name="trajectory-answer",
        title="The answer of a run",
        description="The answer as it was given, whole, or so many of its characters from `offset` on.",
    ),
    ResourceTemplate(
        uri_template="rlm://trajectories/{id}/events/{n}{?offset,limit}",
        name="trajectory-event",
        title="One event of a run",
        description=f"An event with its whole texts, up to {CHARACTERS} characters at a time.",
        mime_type=JSON,
    ),
)
