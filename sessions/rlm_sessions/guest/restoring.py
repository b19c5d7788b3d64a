"""Reading a snapshot back into a session: whatever can be had of it, and an account of the rest.

Most snapshots are read at full speed. From the first variable on that makes trouble a slower reader takes over, which
puts a placeholder where something is missing and goes on; a variable from which a placeholder can be reached is left
out. Nothing that a snapshot holds, or lacks, makes this raise.
"""

from __future__ import annotations

import collections
import gc
import pickle
import sys
import types
from collections.abc import Mapping
from typing import Any, Callable, ClassVar, NamedTuple

from . import errors
from ._rebuilding import Rebuilder, Unrestorable, versions_of
from ._reductions import is_importable
from ._refusals import ModuleRefused

Found = Callable[[Any, str], None]

_DAMAGED = "its data is damaged"
_DAMAGED_FROM_HERE = "the snapshot is damaged, here or before"
_MOST_VISITED = 2_000_000


class Account(NamedTuple):
    """What came of a snapshot: names, then name, type and reason of what is lost, then what else to know."""

    restored: list[str]
    lost: list[list[str]]
    notes: list[str]


def restore(
    namespace: dict[str, Any],
    builtins: dict[str, Any],
    mode: str,
    manifest: dict[str, Any],
    pickled: Any,
    blobs: Mapping[str, bytearray],
    *,
    found_large: Found | None = None,
) -> Account:
    """Put the variables of a snapshot into a namespace.

    The blobs become part of the session. `found_large` is told each large text and its hash, for `Snapshots.recall`.
    """
    namespace["__builtins__"] = builtins
    names = [name for name in _listed(manifest, "names") if type(name) is str]
    reader = _Reader(Rebuilder(namespace, builtins, mode), manifest, pickled, blobs, found_large)
    try:
        reader.read()
    except (
        BaseException
    ) as problem:  # it is the session's own code that runs here, or damage that looks like it
        reader.stop(problem)
    namespace.update(reader.values)
    told = [entry for entry in _listed(manifest, "lost") if isinstance(entry, list) and len(entry) == 3]
    lost = {str(entry[0]): [str(part) for part in entry] for entry in told}
    for name in [*names, *reader.lost]:
        if name not in reader.values and name != "_":
            lost.setdefault(name, [name, "", reader.lost.get(name, reader.end_reason)])
    return Account([name for name in reader.values if name != "_"], list(lost.values()), _notes(manifest))


def _listed(manifest: dict[str, Any], name: str) -> list[Any]:
    found = manifest.get(name)
    return found if isinstance(found, list) else []


def _notes(manifest: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    made, now = str(manifest.get("python", "")), ".".join(map(str, sys.version_info[:3]))
    if made and made != now:
        notes.append(f"made with Python {made}, read with {now}")
    versions = manifest.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    current = versions_of(versions)
    for name, version in versions.items():
        if name in current and current[name] != version:
            notes.append(f"made with {name} {version}, read with {current[name]}")
    return notes


class _Reader:
    """Reads the variables one after another."""

    def __init__(
        self, rebuilder: Rebuilder, manifest: dict[str, Any], pickled: Any, blobs: Any, found: Found | None
    ) -> None:
        self.values: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        self.end_reason = _DAMAGED_FROM_HERE
        self._rebuilder = rebuilder
        self._blobs = _BlobValues(_listed(manifest, "blobs"), blobs, found)
        self._file = _File(pickled)

    def read(self) -> None:
        """Read at full speed, and slowly from the first trouble on."""
        fast = _Fast(self._file, self._rebuilder, self._blobs)
        pair: Any = None
        while not self._file.at_end():
            start, buffers, before = self._file.place, self._blobs.place, pair
            try:
                name, value = pair = _pair(fast.load())
            except BaseException:  # see `restore`
                self._file.place, self._blobs.place = start, buffers
                self._read_slowly(_memo_up_to(fast, before))
                return
            self.values[name] = value

    def _read_slowly(self, memo: dict[int, Any]) -> None:
        slow = _Slow(self._file, self._rebuilder, self._blobs, memo)
        values: dict[str, Any] = {}
        try:
            while not self._file.at_end():
                pair = slow.load()
                if isinstance(pair, Missing):
                    raise Unrestorable(_DAMAGED_FROM_HERE)
                name, value = _pair(pair)
                values[name] = value
        except BaseException as problem:  # see `restore`
            self.stop(problem)
        walk = _Walk(slow.broken, self._rebuilder)
        for name, value in values.items():
            reason = walk.reason_against(value)
            if reason is None:
                self.values[name] = value
            else:
                self.lost[name] = reason

    def stop(self, problem: BaseException) -> None:
        """Note why what has not been read will not be."""
        if isinstance(problem, MemoryError):
            self.end_reason = "there was not enough memory to read it"


def _memo_up_to(fast: _Fast, pair: Any) -> dict[int, Any]:
    """Return what a reader remembers, without what came after a pair: each ends with itself being remembered."""
    memo: Any = fast.memo
    memo = memo.copy()
    last = next((number for number, value in memo.items() if value is pair), -1) if pair is not None else -1
    return {number: value for number, value in memo.items() if number <= last}


def _pair(found: Any) -> tuple[str, Any]:
    if type(found) is not tuple or len(found) != 2 or type(found[0]) is not str:
        raise pickle.UnpicklingError(_DAMAGED_FROM_HERE)
    return found


class _File:
    """The bytes of a pickle, as what a pickle is read from."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data)
        self.place = 0

    def at_end(self) -> bool:
        return self.place >= len(self._data)

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else min(self.place + size, len(self._data))
        data = bytes(self._data[self.place : end])
        self.place = end
        return data

    def readinto(self, target: Any) -> int:
        size = min(len(target), len(self._data) - self.place)
        target[:size] = self._data[self.place : self.place + size]
        self.place += size
        return size

    def readline(self) -> bytes:
        line = bytes(self._data[self.place : self.place + 1000]).partition(b"\n")
        return self.read(len(line[0]) + len(line[1]))


class _BlobValues:
    """The large values of a snapshot, by their numbers; the buffers among them also one after another."""

    def __init__(self, listed: list[Any], blobs: Mapping[str, bytearray], found: Found | None) -> None:
        self._listed = [tuple(entry) for entry in listed if isinstance(entry, list) and len(entry) == 3]
        self._blobs = blobs
        self._found = found
        self._uses = collections.Counter(entry[1] for entry in self._listed)
        self._buffers = [entry for entry in self._listed if entry[0] in ("buffer", "readonly")]
        self._made: dict[int, Any] = {}
        self.place = 0

    def __iter__(self) -> _BlobValues:
        return self

    def __next__(self) -> Any:
        if self.place >= len(self._buffers):
            raise Unrestorable(_DAMAGED)
        self.place += 1
        _, hash, size = self._buffers[self.place - 1]
        return self._own(hash, size)

    def value(self, number: int) -> Any:
        """Return the value of that number, the same each time."""
        if number not in self._made:
            if not 0 <= number < len(self._listed):
                raise Unrestorable(_DAMAGED)
            self._made[number] = self._make(*self._listed[number])
        return self._made[number]

    def _make(self, kind: str, hash: str, size: int) -> Any:
        if kind == "bytearray":
            return self._own(hash, size)
        data = self._data(hash, size)
        try:
            value: Any = str(data, "utf-8", "surrogatepass") if kind == "str" else bytes(data)
        except UnicodeDecodeError:
            raise Unrestorable(_DAMAGED) from None
        if self._found is not None:
            self._found(value, hash)
        return value

    def _own(self, hash: str, size: int) -> bytearray:
        """Return bytes that nobody else has: the blob itself where nothing else is made of it."""
        data = self._data(hash, size)
        return data if self._uses[hash] == 1 and type(data) is bytearray else bytearray(data)

    def _data(self, hash: str, size: int) -> bytearray:
        data = self._blobs.get(hash)
        if data is None or len(data) != size:
            raise Unrestorable(_DAMAGED)
        return data


class _Fast(pickle.Unpickler):
    """Reads at the speed of C, and stops at the first trouble."""

    def __init__(self, file: Any, rebuilder: Rebuilder, blobs: _BlobValues) -> None:
        super().__init__(file, buffers=blobs)
        self._rebuilder = rebuilder
        self._blobs = blobs

    def find_class(self, module: str, name: str) -> Any:
        return self._rebuilder.find_class(module, name, super().find_class)

    def persistent_load(self, pid: Any) -> Any:
        return self._blobs.value(pid) if type(pid) is int else self._rebuilder.named(pid)


# ---- reading on where something is missing


class Missing:
    """Stands where something could not be put together."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _reason_of(problem: BaseException) -> str:
    if isinstance(problem, Unrestorable):
        return str(problem)
    if isinstance(problem, ModuleRefused):
        return str(problem)[:200]
    if isinstance(problem, ModuleNotFoundError) and problem.name:
        return f"it needs the module {problem.name!r}, which is not installed here"
    if isinstance(problem, MemoryError):
        return "there was not enough memory to read it"
    return f"{errors.class_name(problem)}: {errors.message_of(problem)}"[:200]


_Base: Any = vars(pickle)["_Unpickler"]


class _Slow(_Base):  # type: ignore[misc]
    """Reads what the other cannot, with placeholders for what is missing."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Base.dispatch)

    def __init__(self, file: Any, rebuilder: Rebuilder, blobs: _BlobValues, memo: dict[int, Any]) -> None:
        super().__init__(file, buffers=blobs)
        self.memo = memo
        self.broken: dict[int, tuple[Any, str]] = {}
        self._rebuilder = rebuilder
        self._blobs = blobs

    def find_class(self, module: str, name: str) -> Any:
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError(_DAMAGED_FROM_HERE)
        return self._made(lambda: self._rebuilder.find_class(module, name, super(_Slow, self).find_class))

    def persistent_load(self, pid: Any) -> Any:
        if type(pid) is int:
            return self._made(lambda: self._blobs.value(pid))
        return self._made(lambda: self._rebuilder.named(pid))

    def _made(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except BaseException as problem:  # see `restore`
            return Missing(_reason_of(problem))

    def _called(self, function: Any, args: Any, kwargs: Any = None) -> Any:
        if type(args) is not tuple:
            return Missing(_DAMAGED)
        missing = _missing_in((function, args, *(kwargs or {}).values()))
        if missing is None:
            missing = made = self._made(lambda: function(*args, **(kwargs or {})))
            if type(made) is not Missing:
                return made
        if self._rebuilder.is_filler(function) and args:
            self._break(args[0], missing)
        return missing

    def _break(self, obj: Any, missing: Any) -> None:
        """Note that an object, which others may hold, is not whole."""
        self.broken[id(obj)] = obj, missing.reason

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self._make_object(args, {})

    def load_newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        self._make_object(args, kwargs)

    def _make_object(self, args: Any, kwargs: Any) -> None:
        cls = self.stack[-1]
        if type(cls) is Missing or type(args) is not tuple:
            self.stack[-1] = cls if type(cls) is Missing else Missing(_DAMAGED)
        else:
            self.stack[-1] = self._called(getattr(cls, "__new__", None), (cls, *args), kwargs)

    def load_build(self) -> None:
        target = self.stack[-2]
        self._on(target, lambda: _Base.load_build(self), self.stack.pop)

    def load_append(self) -> None:
        item = self.stack.pop()
        target = self.stack[-1]
        self._on(target, lambda: target.append(item))

    def load_appends(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        self._on(target, lambda: [target.append(item) for item in items])

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        target = self.stack[-1]
        self._on(target, lambda: target.__setitem__(key, value))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        pairs = list(zip(items[::2], items[1::2]))
        self._on(target, lambda: [target.__setitem__(key, value) for key, value in pairs])

    def load_additems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        self._on(target, lambda: [target.add(item) for item in items])

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.stack.append(self._made(lambda: frozenset(items)))

    def load_next_buffer(self) -> None:
        self.stack.append(self._made(lambda: next(self._blobs)))

    def load_readonly_buffer(self) -> None:
        buffer = self.stack[-1]
        if type(buffer) is not Missing:
            self.stack[-1] = self._made(lambda: memoryview(buffer).toreadonly())

    def _on(self, target: Any, change: Callable[[], Any], skip: Callable[[], Any] | None = None) -> None:
        if type(target) is Missing:
            if skip is not None:
                skip()
            return
        missing = self._made(lambda: change() and None)
        if type(missing) is Missing:
            self._break(target, missing)


for _code, _method in {
    pickle.REDUCE: _Slow.load_reduce,
    pickle.NEWOBJ: _Slow.load_newobj,
    pickle.NEWOBJ_EX: _Slow.load_newobj_ex,
    pickle.BUILD: _Slow.load_build,
    pickle.APPEND: _Slow.load_append,
    pickle.APPENDS: _Slow.load_appends,
    pickle.SETITEM: _Slow.load_setitem,
    pickle.SETITEMS: _Slow.load_setitems,
    pickle.ADDITEMS: _Slow.load_additems,
    pickle.FROZENSET: _Slow.load_frozenset,
    pickle.NEXT_BUFFER: _Slow.load_next_buffer,
    pickle.READONLY_BUFFER: _Slow.load_readonly_buffer,
}.items():
    _Slow.dispatch[_code[0]] = _method


def _missing_in(args: Any) -> Missing | None:
    """Return a placeholder that a call would meet: as an argument, or a little below one."""
    level: list[Any] = [args]
    for _ in range(4):
        for item in level:
            if type(item) is Missing:
                return item
        nested = [item for item in level if type(item) in (tuple, list, dict, set, frozenset)]
        level = [inner for item in nested for inner in (item.values() if type(item) is dict else item)][:1000]
    return None


class _Walk:
    """Looks whether a placeholder can be reached from a value."""

    def __init__(self, broken: dict[int, tuple[Any, str]], rebuilder: Rebuilder) -> None:
        self._broken = broken
        self._clean: dict[int, Any] = {}
        names = (rebuilder.named("namespace"), rebuilder.named("builtins"))
        self._ends = {id(end): end for end in (*names, rebuilder)}

    def reason_against(self, value: Any) -> str | None:
        """Return why a value is not whole, or None."""
        seen: dict[int, Any] = {}
        todo = [value]
        while todo and len(seen) < _MOST_VISITED:
            obj = todo.pop()
            if type(obj) is Missing:
                return str(obj.reason)
            if id(obj) in self._broken:
                return self._broken[id(obj)][1]
            if id(obj) not in seen and id(obj) not in self._clean and not self._is_end(obj):
                seen[id(obj)] = obj
                todo += _contents_of_array(obj) or gc.get_referents(obj)
        self._clean.update(seen)
        return None

    def _is_end(self, obj: Any) -> bool:
        kind = type(obj)
        if kind in _PLAIN or id(obj) in self._ends or issubclass(kind, types.ModuleType):
            return True
        if issubclass(kind, type):
            return is_importable(obj)
        if kind is dict:
            name = obj.get("__name__")
            module = sys.modules.get(name) if type(name) is str else None
            return module is not None and getattr(module, "__dict__", None) is obj
        return kind is types.FunctionType and is_importable(obj)


_PLAIN = (int, float, complex, bool, str, bytes, bytearray, type(None))


def _contents_of_array(obj: Any) -> list[Any]:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(obj, numpy.ndarray) or not obj.dtype.hasobject:
        return []
    return list(obj.flat)
