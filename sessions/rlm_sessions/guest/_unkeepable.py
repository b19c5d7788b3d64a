"""What no snapshot can keep, in plain words."""

from __future__ import annotations

from typing import Any

from . import errors


class Unkeepable(Exception):
    """An object cannot be kept; `what` it is, with its article."""

    def __init__(self, what: str, obj: Any) -> None:
        super().__init__(what)
        self.what = what
        self.obj = obj


KINDS: dict[tuple[str, str], str] = {
    ("builtins", "generator"): "a generator that is under way",
    ("builtins", "coroutine"): "a coroutine",
    ("builtins", "async_generator"): "an async generator that is under way",
    ("builtins", "frame"): "a frame of running code",
    ("builtins", "traceback"): "a traceback",
    ("builtins", "memoryview"): "a memoryview",
    ("weakref", "ProxyType"): "a weak reference",
    ("builtins", "weakproxy"): "a weak reference",
    ("builtins", "weakcallableproxy"): "a weak reference",
    ("weakref", "CallableProxyType"): "a weak reference",
    ("_io", "_IOBase"): "an open file",
    ("tempfile", "_TemporaryFileWrapper"): "an open file",
    ("mmap", "mmap"): "a file mapped into memory",
    ("posix", "ScandirIterator"): "a folder that is being listed",
    ("_socket", "socket"): "a network connection",
    ("ssl", "SSLContext"): "a network connection",
    ("_ssl", "_SSLContext"): "a network connection",
    ("selectors", "BaseSelector"): "a network connection",
    ("threading", "Thread"): "a thread",
    ("subprocess", "Popen"): "a running program",
    ("multiprocessing.process", "BaseProcess"): "a running program",
    ("concurrent.futures._base", "Executor"): "a pool of workers",
    ("concurrent.futures._base", "Future"): "the future result of a task",
    ("asyncio.events", "AbstractEventLoop"): "a running event loop",
    ("asyncio.futures", "Future"): "a task of the running event loop",
    ("_asyncio", "Future"): "a task of the running event loop",
    ("_asyncio", "Task"): "a task of the running event loop",
    ("asyncio.tasks", "Task"): "a task of the running event loop",
    ("sqlite3", "Connection"): "a database connection",
    ("sqlite3", "Cursor"): "a database connection",
    ("_queue", "SimpleQueue"): "a queue whose items nobody can look at",
    ("_contextvars", "ContextVar"): "a context variable",
    ("_contextvars", "Context"): "a context of context variables",
    ("_contextvars", "Token"): "a token of a context variable",
}
_NOT_FILES = frozenset({("_io", "BytesIO"), ("_io", "StringIO")})
_HOOKS = ("__reduce__", "__reduce_ex__")


def what_it_is(kind: type) -> str | None:
    """Return what objects of a class are if they cannot be kept. A class that says how to pickle it is asked."""
    for owner in type.__dict__["__mro__"].__get__(kind):
        contents = type.__dict__["__dict__"].__get__(owner)
        name = (str(module_of(owner)), str(type.__dict__["__qualname__"].__get__(owner)))
        if name in KINDS:
            return KINDS[name]
        if name in _NOT_FILES or (name[0] == "__main__" and any(hook in contents for hook in _HOOKS)):
            return None
    return None


def reason_for(problem: BaseException, value: Any) -> str:
    """Return why a variable with that value cannot be kept."""
    if isinstance(problem, Unkeepable):
        return problem.what if problem.obj is value else f"it holds {problem.what}"
    if isinstance(problem, RecursionError) or "recursion" in str(type(problem.__context__)).lower():
        return "it is nested too deeply"
    if isinstance(problem, MemoryError):
        return "there was not enough memory to write it"
    message = errors.message_of(problem).partition("\n")[0]
    return f"{errors.class_name(problem)}: {message}"[:200]


def module_of(cls: type) -> Any:
    """Return where a class says that it comes from, without asking its metaclass."""
    try:
        return type.__dict__["__module__"].__get__(cls)
    except AttributeError:
        return None
