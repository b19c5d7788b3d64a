"""Which settings hold here, and which project would be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..settings import Settings
from ..sources import FILE_NAME, SettingsError, Sources
from .results import Case, Check

if TYPE_CHECKING:
    from rlm_sessions import Project


def configuration(sources: Sources) -> tuple[list[Check], Case]:
    """Return what is to be said of the settings and the project, and the case that the other checks look at."""
    from rlm_sessions import identify

    settings, problems, notes = Settings(), tuple[str, ...](), tuple[str, ...]()
    try:
        settings = sources.load(None).settings
    except SettingsError as problem:
        problems = problem.problems
    try:
        working_directory = Path.cwd()
    except OSError:
        working_directory = None
    host_folder = sources.environment.get("CLAUDE_PROJECT_DIR")
    project = identify(setting=settings.project, host_folder=host_folder, working_directory=working_directory)
    if project.folder and not problems:
        try:
            loaded = sources.load(project.folder)
            settings, notes = loaded.settings, loaded.notes
        except SettingsError as problem:
            problems = problem.problems
    checks = [_settings(sources, project, problems, notes), _project(project)]
    return checks, Case(settings, sources, project.folder)


def _settings(sources: Sources, project: Project, problems: tuple[str, ...], notes: tuple[str, ...]) -> Check:
    files = [sources.user_file, *([project.folder / FILE_NAME] if project.folder else [])]
    there = [str(file) for file in files if file.is_file()]
    variables = sorted(name for name in sources.environment if name.startswith("RLM_"))
    found = ", ".join([*there, *variables])
    found = f"from {found}" if found else f"defaults only (no {files[0]})"
    more = {"files": there, "variables": variables}
    if problems:
        fix = "Correct it; `rlm-mcp config show` lists all settings and where each comes from."
        return Check("Settings", "fail", "; ".join(problems), fix, more)
    if notes:
        return Check("Settings", "warn", f"{found}. {' '.join(notes)}", "", more)
    return Check("Settings", "ok", found, "", more)


def _project(project: Project) -> Check:
    where = str(project.folder) if project.folder else f"{project.name!r}, which has no folder"
    why = {"host folder": "CLAUDE_PROJECT_DIR", "setting": "--project, RLM_PROJECT or rlm.toml"}
    found = f"{where} (from: {why.get(project.source, project.source)})"
    more = {"key": project.key, "source": project.source, "passed_over": list(project.passed_over)}
    if project.passed_over:
        fix = "Name the project with --project, or start in its folder."
        return Check("Project", "warn", f"{found}; not used: {'; '.join(project.passed_over)}", fix, more)
    return Check("Project", "ok", found, "", more)
