"""All that a server has, whatever door its clients come through: whose projects, which session, what changed.

Nothing is opened before somebody needs it, and nothing heavy is imported before: a client waits for the
answer to its first message, and for no more than that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from .environments import Docker, Environment, environment_of, folders_of, limits_of, notes_of, way_to_more
from .errors import DoorError, EnvironmentUnavailable, FolderTooWide, ProjectNotAllowed
from .jobs import Jobs
from .models import Choice
from .narrowing import inside
from .opened import Opened, Terms
from .progress import Progress
from .sources import Loaded, Sources
from .tenants import OWNER, Tenant

if TYPE_CHECKING:
    from rlm_runtime import AnswerStore, Model, Rooms
    from rlm_sandboxes import Program
    from rlm_sessions import Care, Manager, Project, ProjectSession

    from .opened import Sandbox
    from .settings import Settings

_log = logging.getLogger(__name__)
_FRESH_SECONDS, _MOST_FRESH = 1.0, 1000
_FETCHED = "Status:"  # as Docker says at the end
_OF_COPIES = (
    "Code here sees copies of the project's files, as they were when the session started, and what it changes in them "
    "stays there. clear_repl_context without names starts it anew, with the files as they are then."
)

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """Something that a client may want to hear of: a resource that changed, or another list of them."""

    tenant: Tenant
    uri: str
    kind: Literal["updated", "listed"]


@dataclass(frozen=True)
class Surroundings:
    """What was found where the server was started, from which the project of a client follows that names none."""

    host_folder: str | None = None  # CLAUDE_PROJECT_DIR
    working_directory: Path | None = None


class App:
    """All that a server has. `open_app` makes one."""

    def __init__(
        self,
        sources: Sources,
        base: Loaded,
        surroundings: Surroundings,
        tasks: anyio.abc.TaskGroup,
        *,
        brief: bool = False,
    ) -> None:
        self.base = base
        self.on_news: list[Callable[[str], None]] = []
        self.listeners: list[Callable[[Change], Awaitable[None]]] = []
        self.leaving: list[Callable[[], None]] = []
        self.progress = Progress(tasks)
        self._sources = sources
        self._surroundings = surroundings
        self._opened = Opened(tasks, terms=self._terms, hear=self._hear, brief=brief)
        self._runs_in: dict[tuple[Tenant, str], Environment] = {}
        self._news: dict[Environment, str] = {}
        self._told: set[tuple[Tenant, str]] = set()
        self._projects: _Fresh[Project] = _Fresh()
        self._loaded: _Fresh[Loaded] = _Fresh()
        self.jobs = Jobs(tasks)
        self._stores: dict[Path, AnswerStore] = {}

    @property
    def settings(self) -> Settings:
        """The settings of the server itself, which no project's file has a part in."""
        return self.base.settings

    # ---- projects and sessions

    async def project(self, tenant: Tenant, named: str | None, *, roots: Sequence[str] = ()) -> Project:
        """Return the project that a client means. Raise `ProjectError` or `ProjectNotAllowed`."""
        key = (tenant, named, tuple(roots))
        return await self._projects.get(key, partial(self._project, *key))

    def _project(self, tenant: Tenant, named: str | None, roots: Sequence[str]) -> Project:
        from rlm_sessions import identify

        if tenant.name:
            return _of_tenant(tenant, named or "default")
        around = self._surroundings
        home = identify(
            setting=self.settings.project,
            host_folder=around.host_folder,
            roots=roots,
            working_directory=around.working_directory,
        )
        if named is None or not named.strip():
            return home
        project = identify(named=named, working_directory=home.folder)
        allowed = (*((home.folder,) if home.folder else ()), *self.settings.sandbox.folders)
        if project.folder is not None and not inside(project.folder, allowed):
            raise ProjectNotAllowed(project.folder, allowed, "[sandbox] folders")
        return project

    def needs_roots(self, tenant: Tenant, named: str | None) -> bool:
        """Return whether the roots of a client may say which project it means."""
        known = tenant.name or self.settings.project.strip() or self._surroundings.host_folder
        return not known and (not named or "/" in named or "\\" in named)

    async def session(self, tenant: Tenant, project: Project) -> ProjectSession:
        """Return the session of a project. Raise `DoorError` if its settings do not let it run."""
        manager = await self.manager(tenant)
        loaded = await self.loaded(project)
        settings, environment = loaded.settings, environment_of(loaded.settings, tenant)
        sandbox = await self._sandbox(loaded, environment)
        if self._runs_in.get((tenant, project.key), environment) != environment:
            await self.jobs.put_away((tenant, project.key))
            await manager.close(project)  # it goes on there with the variables that it has
        self._runs_in[tenant, project.key] = environment
        if manager.found(project.key) is None:
            await self._opened.make_room()
        return await manager.session(project, care=care_of(settings, tenant), sandbox=sandbox)

    async def _sandbox(self, loaded: Loaded, environment: Environment) -> Sandbox:
        from rlm_sandboxes import SandboxUnavailable

        try:
            return await self._opened.sandbox(environment)
        except SandboxUnavailable as problem:
            if isinstance(environment, Docker):
                raise EnvironmentUnavailable(problem, loaded.origins["rlm.environment"].where) from problem
            raise

    def news_of(self, tenant: Tenant, project: Project) -> str:
        """Return what is to be waited for where a project's code runs, such as an image; nothing if nothing is."""
        environment = self._runs_in.get((tenant, project.key))
        return self._news.get(environment, "") if environment is not None else ""

    def _hear(self, environment: Environment, text: str) -> None:
        assert isinstance(environment, Docker)
        news = f"fetching the image {environment.image}: {text}"
        if environment not in self._news:
            _log.info("Fetching the image %s.", environment.image)
        self._news[environment] = "" if text.startswith(_FETCHED) else news
        for hear in self.on_news:
            hear(news)

    async def folders(self, tenant: Tenant, project: Project, folder: Path | None) -> tuple[Path, ...]:
        """Return the folders from which a project's code may read, its own first."""
        settings = (await self.loaded(project)).settings
        own = (folder,) if folder is not None and settings.sandbox.files != "none" else ()
        return (*own, *folders_of(settings, tenant))

    async def loaded(self, project: Project) -> Loaded:
        """Return the settings that hold for a project."""
        return await self._loaded.get(project.folder, partial(self._load, project.folder))

    def _load(self, folder: Path | None) -> Loaded:
        loaded = self._sources.load(folder)
        if folder is not None and loaded.settings.sandbox.files != "none":
            for place in (root_of(self.settings, OWNER), self._sources.config_dir):
                if inside(place, [folder]):
                    raise FolderTooWide(folder, place)
        return loaded

    async def first_notes(self, tenant: Tenant, project: Project) -> tuple[str, ...]:
        """Return what there is to say of a project's settings and of how it was found, the first time only."""
        if (tenant, project.key) in self._told:
            return ()
        self._told.add((tenant, project.key))
        passed_over = tuple(
            f"Not used as the project: {each}. Used instead: {project.name}." for each in project.passed_over
        )
        loaded = await self.loaded(project)
        notes = (*loaded.notes, *notes_of(loaded), *self._notes_of_copies(tenant, project))
        if tenant.name:  # what the server was started with is not for them
            notes = tuple(note for note in notes if note not in self.base.notes)
        return passed_over + notes

    def _notes_of_copies(self, tenant: Tenant, project: Project) -> tuple[str, ...]:
        environment = self._runs_in.get((tenant, project.key))
        sandbox = self._opened.found(environment) if isinstance(environment, Docker) else None
        copied = getattr(sandbox, "copies_files", False)
        return (_OF_COPIES,) if copied else ()

    async def changed(self, change: Change) -> None:
        """Tell everybody who listens."""
        for listener in self.listeners:
            await listener(change)

    # ---- models

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment that the server was started in."""
        return self._sources.environment

    async def has_model(self) -> bool:
        """Return whether the settings name who answers, for the project that will most likely be asked for."""
        settings, _ = await self._likely()
        rlm = settings.rlm
        return rlm.backend != "none" and bool(rlm.command or (rlm.model and rlm.backend != "command"))

    async def model(self, choice: Choice) -> Model:
        """Return a model to ask. Raise `ModelUnavailable` if it cannot be had here."""
        return await self._opened.model(choice)

    def place(self, tenant: Tenant, project: Project) -> Path:
        """Return where the things of a project are kept."""
        return root_of(self.settings, tenant) / "projects" / project.key

    def answers_in(self, folder: Path) -> AnswerStore:
        """Return the answers that are stored in a folder; the same ones for all who ask."""
        if folder not in self._stores:
            from rlm_runtime import AnswerStore

            self._stores[folder] = AnswerStore(folder)
        return self._stores[folder]

    async def rooms(self, tenant: Tenant, project: Project) -> Rooms:
        """Return where runs of a project work: in the same kind of place as its session, each for itself."""
        from rlm_runtime import Rooms

        loaded = await self.loaded(project)
        settings = loaded.settings
        sandbox = await self._sandbox(loaded, environment_of(settings, tenant))
        return Rooms(
            sandbox,
            limits=limits_of(settings, tenant),
            policy=settings.sandbox.policy,
            project=project.folder,
            shows_files=settings.rlm.environment == "local",
        )

    # ---- what is opened on the way

    async def warm_up(self) -> None:
        """Do ahead what the first cell would wait for."""
        from rlm_sandboxes.local import LocalSandbox

        from .answering import load_runtime

        try:
            await self.manager(OWNER)
            settings, folder = await self._likely()
            sandbox = await self._opened.sandbox(environment_of(settings))
            program = await anyio.to_thread.run_sync(_guest_program)
            if isinstance(sandbox, LocalSandbox):
                await sandbox.warm_up(program)
            else:
                await sandbox.warm_up(program, folder, limits_of(settings))
            if await self.has_model():
                await load_runtime()
        except Exception:  # noqa: BLE001 -- whoever needs it meets the same problem, and is told
            _log.debug("The sandbox could not be made ready ahead.", exc_info=True)

    async def _likely(self) -> tuple[Settings, Path | None]:
        """Return the settings and the folder of the project that will most likely be asked for."""
        from rlm_sessions import ProjectError

        try:
            project = await self.project(OWNER, None)
            return (await self.loaded(project)).settings, project.folder
        except (ProjectError, DoorError):
            return self.settings, None

    async def manager(self, tenant: Tenant) -> Manager:
        """Return who has the sessions of a tenant."""
        return await self._opened.manager(tenant)

    def managers(self) -> dict[Tenant, Manager]:
        """Return who has sessions, of those that are open."""
        return self._opened.managers()

    def _terms(self, tenant: Tenant) -> Terms:
        from rlm_sessions import Household, Places

        sessions = self.settings.sessions
        household = Household(
            awake=sessions.awake,
            memory_bytes=sessions.memory_bytes,
            idle_seconds=sessions.idle_seconds,
            kept_bytes=sessions.kept_bytes,
        )
        return Terms(Places(root_of(self.settings, tenant)), care_of(self.settings, tenant), household)

    def leave(self) -> None:
        """Have it told to who listens that there is nothing more to come. A door does this when it begins to close."""
        for leave in self.leaving:
            leave()

    def close(self) -> None:
        """Have every session put to sleep, and then the places ended that they run in."""
        self.jobs.close()
        self._opened.close()
        self.progress.close()


@asynccontextmanager
async def open_app(
    sources: Sources,
    surroundings: Surroundings | None = None,
    *,
    base: Loaded | None = None,
    brief: bool = False,
) -> AsyncGenerator[App, None]:
    """Make ready what a server has; at the end all sessions are put to sleep. Raise `SettingsError`.

    One that is `brief` keeps nothing ready for later.
    """
    if base is None:
        base = await anyio.to_thread.run_sync(sources.load, None)
    stack = AsyncExitStack()
    tasks = await stack.enter_async_context(anyio.create_task_group())
    app = App(sources, base, surroundings or Surroundings(), tasks, brief=brief)
    try:
        yield app
    finally:
        app.close()
        await stack.aclose()  # and not around the caller's block, whose errors are its own


class _Fresh(Generic[T]):
    """What was found on disk a moment ago, so that calls in quick succession do not each look again."""

    def __init__(self) -> None:
        self._found: dict[Any, tuple[float, T]] = {}

    async def get(self, key: Any, look: Callable[[], T]) -> T:
        """Return what was found for `key`, by `look` in a thread unless that was a moment ago."""
        now = time.monotonic()
        when, found = self._found.get(key, (-_FRESH_SECONDS, None))
        if found is not None and now - when < _FRESH_SECONDS:
            return found
        found = await anyio.to_thread.run_sync(look)
        if len(self._found) >= _MOST_FRESH:
            self._found.clear()
        self._found[key] = (now, found)
        return found


def root_of(settings: Settings, tenant: Tenant) -> Path:
    """Return where everything of a tenant is kept."""
    from rlm_sessions import default_root

    root = settings.sessions.state_dir or default_root()
    if not tenant.name:
        return root
    return root / "tenants" / sha256(tenant.name.encode()).hexdigest()[:32]


def care_of(settings: Settings, tenant: Tenant = OWNER) -> Care:
    """Return how sessions are run and kept. The folders that the account may read are not for its tenants."""
    from rlm_sessions import Care

    return Care(
        limits=limits_of(settings, tenant),
        policy=settings.sandbox.policy,
        durable=settings.sessions.durable,
        shown_characters=settings.sessions.shown_characters,
        state_bytes=settings.sessions.state_bytes,
        more=partial(_more, settings),
    )


def _more(settings: Settings, limit: str, value: str) -> str:
    """Return what a cell that reached a limit is told about raising it."""
    if limit == "wall_seconds":
        most = settings.sandbox.most_seconds
        return f"Pass a larger timeout_s (up to {most:g}), or do less in one call."
    return way_to_more(settings, limit, value)


def _of_tenant(tenant: Tenant, named: str) -> Project:
    """Return a project of a tenant, who is not told whether there is a folder where none may be used."""
    from rlm_sessions import identify

    if named.startswith(("/", "~", "file:")) and not inside(Path(named), tenant.folders):
        raise ProjectNotAllowed(named, tenant.folders, "[http] folders")
    project = identify(named=named)
    if project.folder is not None and not inside(project.folder, tenant.folders):
        raise ProjectNotAllowed(named, tenant.folders, "[http] folders")
    return project


def _guest_program() -> Program:
    from rlm_sessions import guest_program

    return guest_program()
