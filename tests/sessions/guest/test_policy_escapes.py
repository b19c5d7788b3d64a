"""Attempts to get out of the language policy, judged by what they got and never by what they were told.

An attempt puts what it reached into `found`, or reads the file at `CANARY`, or runs a program that writes to
`PWNED`. It is held when nothing that its variables lead to is a door, the secret is nowhere, and no file was made.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import gc
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlm_sessions.guest import policy

SECRET = "the-canary-sings-4711"

STRICT = r"""
# %% list every class
found = ().__class__.__bases__[0].__subclasses__()

# %% list every class by computed name
found = getattr(object, "__sub" + "classes__")()

# %% list every class through the metaclass
found = type.__subclasses__(object)

# %% the globals of a library function
import json
found = json.dumps.__globals__

# %% the globals of a library function by getattr
import json
found = getattr(json.dumps, "__glo" + "bals__")

# %% a name that is a str subclass and answers as it likes (RestrictedPython 7.2)
class Name(str):
    def __eq__(self, other):
        Name.asked += 1
        return Name.asked > Name.quiet and str.__eq__(self, other)
    __hash__ = str.__hash__
    def startswith(self, prefix): return False
import json
for quiet in range(6):
    Name.quiet, Name.asked = quiet, 0
    try:
        found = getattr(json.dumps, Name("__globals__"))
        break
    except AttributeError:
        pass

# %% a name that is a str subclass for hasattr and setattr
class Name(str):
    def __eq__(self, other): return False
    __hash__ = str.__hash__
    def startswith(self, prefix): return False
import json
setattr(json.JSONEncoder, Name("default"), lambda self, o: "patched")
found = json.dumps(object())

# %% the frame of a generator through itself (CVE-2023-37271)
def walk():
    global g
    yield g.gi_frame.f_back.f_back.f_globals
g = walk()
found = list(g)

# %% the frame of a generator expression by computed name
gen = (x for x in [1])
found = getattr(gen, "gi" + "_frame")

# %% the frame of a coroutine
async def work(): pass
c = work()
found = getattr(c, "cr_fra" + "me", None) or c.__getattribute__("cr_frame")

# %% the frame of an async generator (RestrictedPython 8.5)
async def work(): yield 1
found = work().ag_frame

# %% the frame of an async generator by match
async def work(): yield 1
match work():
    case object(ag_frame=f):
        found = f

# %% the frame in a traceback
try:
    1 / 0
except Exception as error:
    found = [error.__traceback__.tb_frame]

# %% the frame in a traceback by attribute name
import sys
try:
    1 / 0
except Exception:
    trace = sys.exc_info()[2]
    found = [getattr(trace, "tb_" + name, None) for name in ("frame", "next")]

# %% the frame that a context manager is given
class Manager:
    def __enter__(self): return self
    def __exit__(self, kind, error, trace):
        global found
        found = vars(type(trace))["tb_frame"].__get__(trace)
        return True
with Manager():
    1 / 0

# %% a literal template (CVE-2023-41039)
import json
text = "{0.__globals__[codecs]}".format(json.load)
found = text if "module" in text else None

# %% a template made at run time
import json
text = ("{0.__glo" + "bals__}").format(json.load)
found = text if "codecs" in text else None

# %% str.format as a function
import json
text = str.format("{0.__glo" + "bals__}", json.load)
found = text if "codecs" in text else None

# %% str.format mapped over templates
import json
text = "".join(map(str.format, ["{0.__glo" + "bals__}"], [json.load]))
found = text if "codecs" in text else None

# %% format_map with a template made at run time
import json
text = ("{f.__glo" + "bals__}").format_map({"f": json.load})
found = text if "codecs" in text else None

# %% a str subclass that formats by super
import json
class Text(str):
    def go(self, *args): return super().format(*args)
text = Text("{0.__glo" + "bals__}").go(json.load)
found = text if "codecs" in text else None

# %% a nested format specification
import json
try:
    text = "{0:{1.__globals__}}".format(1, json.load)
except ValueError as error:
    text = str(error)
found = text if "codecs" in text else None

# %% a template that fails half way and leaves its object behind (CVE-2024-47532)
import json
try:
    ("{0.__glo" + "bals__.nope}").format(json.load)
except AttributeError as error:
    found = error.obj

# %% a broken template that fails half way
import json
try:
    ("{0.__glo" + "bals__.nope} {").format(json.load)
except AttributeError as error:
    found = getattr(error, "obj")
except ValueError:
    pass

# %% the object in an error of a library
import json, operator
try:
    json.dumps.nope
except AttributeError as error:
    match error:
        case AttributeError(obj=o): found = o

# %% the object in an error by attrgetter
import operator, json
try:
    json.dumps.nope
except AttributeError as error:
    f = operator.attrgetter("o" + "bj")(error)
    found = operator.attrgetter("__glo" + "bals__")(f)

# %% string.Formatter (CVE-2026-76825)
import string, json
text = string.Formatter().format("{0.__glo" + "bals__}", json.load)
found = text if "codecs" in text else None

# %% string.Formatter's base class
import string, json
for base in string.Formatter.__mro__[1:]:
    if hasattr(base, "get_field"):
        found = base().get_field("0.__glo" + "bals__", (json.load,), {})

# %% string.Formatter's own method
import string, json
found = string.Formatter().get_field("0.__glo" + "bals__", (json.load,), {})

# %% except star with a split of its own (CVE-2025-22153)
class Group(ExceptionGroup):
    def split(self, kind): return "not a tuple"
try:
    raise Group("g", [ValueError()])
except* ValueError:
    found = "entered"

# %% a positional only parameter with the name of a guard (RestrictedPython 8.3)
def f(_getattr_, _write_, _getiter_, /):
    return _getattr_(print, "__self__")
found = f(getattr, None, None)

# %% guards replaced in the globals
import json
names = globals()
for name in list(names["__built" + "ins__"]):
    if name.startswith("<"):
        names[name] = lambda *args: args[0]
json.JSONEncoder.default = lambda self, o: "patched"
found = [json.dumps.__dict__, json.dumps(object())]

# %% guards replaced in the namespace of a class
class Names(dict):
    def __missing__(self, name):
        if name.startswith("<"):
            return lambda *args: args[0]
        raise KeyError(name)
class Meta(type):
    @classmethod
    def __prepare__(mcls, name, bases): return Names()
import json
class C(metaclass=Meta):
    json.JSONEncoder.default = lambda self, o: "patched"
    text = "{0.__glo" + "bals__}"
    found = text.format(json.load)
found = C.found if "codecs" in str(C.found) else json.dumps(object())

# %% guards replaced in the builtins of exec
import json
builtins = {"__builtins__": {"json": json}}
for name in list(globals()["__built" + "ins__"]):
    builtins["__builtins__"][name] = lambda *args: args[-1]
exec("x = ('{0.__glo' + 'bals__}').format(json.load)\ny = json.JSONEncoder.default", builtins)
found = builtins["x"] if "codecs" in str(builtins["x"]) else None

# %% an import function of one's own that an import statement reads from
import json
names = {"__builtins__": {"__import__": lambda *args: json.dumps}}
exec("from x import __globals__ as g", names)
found = names["g"]

# %% an import function of one's own and a dotted import
import json
names = {"__builtins__": {"__import__": lambda *args: json.dumps}}
exec("import x.__globals__ as g", names)
found = names["g"]

# %% an import function of one's own and a star import
def f(): pass
f.__all__ = ["__code__"]
names = {"__builtins__": {"__import__": lambda *args: f}}
exec("from x import *", names)
found = names["__code__"].replace(co_name="x")

# %% the real builtins by an exec without any
names = {}
exec("import sys as s", names)
found = names["__builtins__"]["open"]("CANARY").read()

# %% the builtins of a fresh namespace in eval
found = eval("[c for c in ().__class__.__base__.__subclasses__()]", {})

# %% eval with empty builtins and doors inside
import json
found = eval("f.__globals__", {"__builtins__": {}, "f": json.dumps})

# %% a nested exec
exec('exec("import subprocess as found")')

# %% delete the builtins and start over
del globals()["__built" + "ins__"]
exec("found = open('CANARY').read()")

# %% import the usual suspects
found = []
for name in ("os", "sys", "subprocess", "ctypes", "importlib", "builtins", "posix", "socket", "_io", "shutil", "gc"):
    try:
        module = __import__(name)
    except ImportError:
        continue
    for door in ("system", "popen", "_getframe", "modules", "open", "exec", "get_objects", "import_module", "FileIO"):
        if hasattr(module, door):
            found.append(getattr(module, door))

# %% import with the arguments that C code passes
names = globals()
load = names["__built" + "ins__"]["__import__"]
found = [load("os", names, names, [], 0), load("subprocess", names, None, ["x"], 0)]

# %% every name of every module that can be imported
import array, ast, asyncio, base64, bisect, calendar, collections, collections.abc, contextlib, copy, csv, dataclasses
import datetime, decimal, difflib, enum, fractions, functools, gc, gzip, hashlib, heapq, html, http, io, ipaddress
import itertools, json, logging, math, numbers, operator, os, os.path, pathlib, pprint, queue, random, re, secrets
import shlex, statistics, string, struct, sys, textwrap, time, timeit, traceback, types, typing, unicodedata
import urllib.parse, uuid, warnings, weakref, xml.etree.ElementTree, xml.sax.saxutils, zlib, zoneinfo
found = {f"{n}.{k}": v for n, m in list(globals().items()) if isinstance(m, types.ModuleType) for k, v in vars(m).items()}

# %% modules that came along in modules
found = []
import dataclasses, random, json, typing, enum, collections
for module in (dataclasses, random, json, typing, enum, collections):
    for name in ("sys", "_os", "os", "_sys", "codecs", "builtins", "re", "types", "inspect", "abc"):
        try:
            found.append(getattr(module, name))
        except AttributeError:
            pass

# %% modules that came along by from import
from dataclasses import sys as found

# %% modules that came along by their full name
from asyncio import subprocess as found

# %% a loader from a module
import json
found = [getattr(json, name, None) for name in ("__loader__", "__spec__", "__builtins__", "__cached__")]

# %% the module behind a builtin
found = print.__self__

# %% the module behind a builtin by getattr
found = getattr(len, "__se" + "lf__").open

# %% the guard behind a guard
found = getattr.__self__

# %% the insides of a guard
found = [getattr(getattr, name, None) for name in ("__func__", "__wrapped__", "__closure__", "__globals__")]
found += [getattr.__func__.__globals__]

# %% operator.attrgetter
import operator, json
found = operator.attrgetter("__globals__")(json.dumps)

# %% operator.attrgetter along a path
import operator, json
found = operator.attrgetter("dumps.__globals__", "__doc__")(json)

# %% operator.methodcaller
import operator, json
found = operator.methodcaller("__getattribute__", "__globals__")(json.dumps)

# %% object.__getattribute__
import json
found = object.__getattribute__(json.dumps, "__globals__")

# %% object.__getattribute__ handed to map
import json
found = list(map(object.__getattribute__, [json.dumps], ["__globals__"]))

# %% the __getattribute__ of super
import json
class C:
    def go(self, f): return super(type(f), f).__getattribute__("__globals__")
found = C().go(json.dumps)

# %% a class pattern with a door as keyword
import json
match json.dumps:
    case object(__globals__=g): found = g

# %% a class pattern by position on a registered class
from abc import ABC
import json, types
class M(ABC):
    __match_args__ = ("__globals__",)
M.register(types.FunctionType)
match json.dumps:
    case M(g): found = g

# %% a class pattern whose names a metaclass makes up
import json
class Meta(type):
    def __instancecheck__(cls, obj): return True
    def __getattr__(cls, name): return ("__globals__",)
class M(metaclass=Meta): pass
match json.dumps:
    case M(g): found = g

# %% a class pattern whose names a property of the metaclass changes
import json
class Meta(type):
    asked = 0
    def __instancecheck__(cls, obj): return True
    @property
    def __match_args__(cls):
        Meta.asked += 1
        return ("__doc__",) if Meta.asked < 2 else ("__globals__",)
class M(metaclass=Meta): pass
match json.dumps:
    case M(g): found = g

# %% a class pattern whose names change while it matches
import json
class Meta(type):
    def __instancecheck__(cls, obj):
        type.__setattr__(cls, "__match_args__", ("__globals__",))
        return True
class M(metaclass=Meta):
    __match_args__ = ("__doc__",)
match json.dumps:
    case M(g): found = g

# %% a class pattern whose names were set by setattr
import json
class Meta(type):
    def __instancecheck__(cls, obj): return True
class M(metaclass=Meta): pass
setattr(M, "__match_args__", ("__globals__",))
match json.dumps:
    case M(g): found = g

# %% a class pattern on a class made by type
import json
Meta = type("Meta", (type,), {"__instancecheck__": lambda cls, obj: True})
M = Meta("M", (), {"__match_args__": ("__globals__",)})
match json.dumps:
    case M(g): found = g

# %% a class pattern on a class made by calling type's call
import json
from abc import ABCMeta
import types
M = type.__call__(ABCMeta, "M", (), {"__match_args__": ("__globals__",)})
M.register(types.FunctionType)
match json.dumps:
    case M(g): found = g

# %% a class pattern on a named tuple with a door for a field
from collections import namedtuple
class Meta(type):
    def __instancecheck__(cls, obj): return True
M = Meta("M", (namedtuple("N", "gi_frame"),), {})
gen = (x for x in [1])
match gen:
    case M(f): found = f

# %% a dataclass field that is source text
import dataclasses
name = "x or __import__('os').system('echo > PWNED') or self.x"
class C: x = 0
C.__annotations__ = {name: int}
setattr(C, name, 1)
dataclasses.dataclass(init=False, repr=False)(C)
C() == C()

# %% a dataclass field that is source text in a base class
import dataclasses
plain = dataclasses.dataclass(init=False, repr=False)
@plain
class Base:
    x: int = 0
Base.__dataclass_fields__["x"].name = "x or __import__('os').system('echo > PWNED') or self.x"
@plain
class Child(Base):
    y: int = 1
Child() == Child()

# %% a dataclass field whose name is a property
import dataclasses
Field = type(dataclasses.field())
class Evil(Field):
    name = property(lambda self: "x or __import__('os').system('echo > PWNED') or self.x", lambda self, value: None)
@dataclasses.dataclass(init=False, repr=False)
class C:
    x: int = Evil(1, dataclasses.MISSING, True, True, None, True, None, False)
C.x = 0
C() == C()

# %% a dataclass default that pretends to be a field
import dataclasses
Field = type(dataclasses.field())
class Liar:
    __class__ = Field
    _field_type = hash = None
    init = repr = compare = True
    kw_only = False
    default = 1
    default_factory = dataclasses.MISSING
    type = int
    name = property(lambda self: "x or __import__('os').system('echo > PWNED') or self.x", lambda self, value: None)
@dataclasses.dataclass(init=False, repr=False)
class C:
    x: int = Liar()
C.x = 0
C() == C()

# %% make_dataclass with a name that is source text
import dataclasses
name = "x or __import__('os').system('echo > PWNED') or self.x"
class Name(str):
    def isidentifier(self): return True
C = dataclasses.make_dataclass("C", [(Name(name), int, 1)], namespace={"x": 0}, init=False, repr=False)
C() == C()

# %% make_dataclass with a namespace that answers for attributes
import dataclasses, json
C = dataclasses.make_dataclass("C", ["x"], namespace={"__getattr__": lambda self, name: json.dumps.__globals__})
found = C(1).anything

# %% a dataclass made of a library's class
import dataclasses, json
dataclasses.dataclass(json.JSONEncoder)
found = json.JSONEncoder if "__match_args__" in dir(json.JSONEncoder) else None

# %% update_wrapper copies doors
import functools, json
class Box: pass
box = Box()
functools.update_wrapper(box, json.dumps, assigned=("__globals__", "__code__"))
found = vars(box)

# %% wraps copies doors
import functools, json
class Box: pass
found = vars(functools.wraps(json.dumps, assigned=["__glo" + "bals__"])(Box()))

# %% update_wrapper writes into a library's globals
import functools, json
patched = []
def f(): pass
def detect_encoding(data): return patched.append("patched") or "utf-8"
try:
    functools.update_wrapper(json.dumps, f, assigned=(), updated=("__globals__",))
finally:
    json.loads(b"1")
    found = patched

# %% partial of getattr
import functools, json
found = functools.partial(getattr, json.dumps)("__glo" + "bals__")

# %% singledispatch evaluates annotations that are text
import functools
@functools.singledispatch
def f(x): pass
def g(x): pass
g.__annotations__ = {"x": "__import__('os').system('echo > PWNED')"}
f.register(g)

# %% singledispatchmethod evaluates annotations that are text
import functools
class C:
    @functools.singledispatchmethod
    def f(self, x): pass
def g(self, x): pass
g.__annotations__ = {"x": "__import__('os').system('echo > PWNED')"}
C.__dict__["f"].register(g)

# %% get_type_hints evaluates text
import typing
class C:
    x: "().__class__.__base__.__subclasses__()"
found = typing.get_type_hints(C)

# %% get_type_hints evaluates text with builtins of its own
import typing
def f(x): pass
f.__annotations__ = {"x": "__import__('os').system('echo > PWNED')"}
found = typing.get_type_hints(f, {}, {})

# %% a forward reference evaluates itself
import typing
ref = typing.get_args(typing.List["().__class__.__base__.__subclasses__()"])[0]
for name, given in (("evaluate", {"globals": {}}), ("_evaluate", {}), ("_evaluate", {"type_params": ()})):
    if hasattr(ref, name):
        try:
            found = getattr(ref, name)(**given) if name == "evaluate" else getattr(ref, name)({}, {}, **given, recursive_guard=frozenset())
        except TypeError as problem:
            if "<class" in str(problem):
                found = "ran"

# %% a protocol with type hints evaluated by a library
import typing, dataclasses
@dataclasses.dataclass
class C:
    x: "__import__('os').system('echo > PWNED')" = 1
typing.get_type_hints(C)

# %% enum.global_enum writes into a module
import enum, json
found = []
class Evil(enum.Enum):
    __module__ = "json"
    detect_encoding = 1
    def __call__(self, data): return found.append("patched") or "utf-8"
try:
    enum.global_enum(Evil)
finally:
    json.loads(b"1")

# %% Enum._convert_ reads a module
import enum
found = enum.Enum._convert_("X", "os", lambda name: name == "system")
found = found.system.value

# %% Enum._convert_ by super
import enum
class Meta(enum.EnumMeta):
    def go(cls): return super()._convert_("X", "os", lambda name: name == "system")
class E(enum.Enum, metaclass=Meta): pass
found = E.go().system.value

# %% enum.property reads an attribute that a subclass names
import enum, json
Property = enum.property
class P(Property):
    _attr_type = "desc"
    name = "__globals__"
    fget = None
class D:
    _value_ = json.dumps
    x = P()
found = D().x

# %% copy sets attributes that __reduce__ names
import copy, json
class C:
    def __reduce_ex__(self, protocol):
        return (lambda: json.JSONEncoder), (), (None, {"default": lambda self, o: "patched"})
copy.copy(C())
found = json.dumps(object())

# %% copy of an object that is made by what it names
import copy
class C:
    def __reduce_ex__(self, protocol): return eval, ("__import__('os').system('echo > PWNED')",)
copy.copy(C())

# %% redirect_stdout with another name
import contextlib
class R(contextlib.redirect_stdout):
    _stream = "modules"
r = R(None)
r.__enter__()
found = r._old_targets

# %% the raw file behind standard output
import sys
found = type(sys.stdout.buffer.raw)("CANARY").read()

# %% the stream that print writes to
import sys, io
before, sys.stdout = sys.stdout, io.StringIO()
sys.stdout = before
found = type(before.buffer.raw)("CANARY").read()

# %% a code object changed before it runs
code = compile("1", "x", "eval").replace(co_names=("x",))
found = eval(code)

# %% a code object of one's own function
def f(): pass
found = f.__code__.replace

# %% a function made of a code object
import types
def f(): pass
found = types.FunctionType(getattr(f, "__co" + "de__"), {})

# %% a code object from the type of one
found = type((lambda: 0).__code__)

# %% ast.iter_fields reads what a function names
import ast
def f(): pass
f._fields = ("__code__",)
found = dict(ast.iter_fields(f))

# %% a proxy that writes through to a class
import weakref, json
proxy = weakref.proxy(json.JSONEncoder)
proxy.default = lambda self, o: "patched"
found = json.dumps(object())

# %% patch a library's class
import json
json.JSONEncoder.default = lambda self, o: "patched"
found = json.dumps(object())

# %% patch a library's class in a for loop a with and a del
import json
for json.JSONEncoder.default in [lambda self, o: "patched"]: pass
found = json.dumps(object())

# %% patch a library's class by unpacking
import json
a, (json.JSONEncoder.default, b) = 1, (lambda self, o: "patched", 2)
found = json.dumps(object())

# %% patch a library's class by setattr and object.__setattr__
import json
for setter in (setattr, type.__setattr__, object.__setattr__):
    try:
        setter(json.JSONEncoder, "default", lambda self, o: "patched")
    except (AttributeError, TypeError):
        pass
found = json.dumps(object())

# %% patch a library's class by a typing alias
import typing, collections.abc
alias = typing.Counter
alias.update = "patched"
import collections
found = collections.Counter.update if collections.Counter.update == "patched" else None

# %% change the defaults of a library's function
import textwrap
textwrap.shorten.__kwdefaults__ = {"placeholder": "patched"}
textwrap.fill.__defaults__ = (5,)
found = "patched"

# %% patch a module for the libraries
import json
found = []
json.detect_encoding = lambda data: found.append("patched") or "utf-8"
json.loads(b"1")

# %% the dictionary of the function type
import types
found = vars(types.FunctionType)["__globals__"]

# %% the dictionary of the function type as an attribute
import types, json
found = types.FunctionType.__dict__["__glo" + "bals__"].__get__(json.dumps)

# %% the dictionary of a library's class
import json
found = json.JSONEncoder.__dict__["encode"].__globals__

# %% private names by a class that says it is another module's
import enum
class E(enum.Enum):
    __module__ = "enum"
found = E._convert_("X", "os", lambda name: name == "system").system.value

# %% names written in other letters
import json
found = json.dumps.__ｇlobals__

# %% a log format that reads attributes
import logging, json, io
out = io.StringIO()
record = logging.LogRecord("n", 20, "p", 1, json.load, (), None)
text = logging.Formatter("{msg.__globals__}", style="{").format(record)
found = text if "codecs" in text else None

# %% a log that writes a file
import logging
logging.basicConfig(filename="PWNED", force=True)
logging.error("x")

# %% a log handler that writes a file
import logging
logging.FileHandler("PWNED")

# %% programs started by asyncio
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    await asyncio.create_subprocess_shell("echo > PWNED")
asyncio.run(main())

# %% the event loop of a task
import asyncio
async def main():
    global found
    task = asyncio.create_task(asyncio.sleep(0))
    found = task.get_loop()
    await task
asyncio.run(main())

# %% the frames of a task
import asyncio
async def main():
    global found
    task = asyncio.create_task(asyncio.sleep(0))
    found = getattr(task, "get_" + "stack")()
    await task
asyncio.run(main())

# %% a warning that shows a line of any file
import warnings, io, contextlib
out = io.StringIO()
with contextlib.redirect_stderr(out):
    warnings.warn_explicit("x", UserWarning, "CANARY", 1)
found = out.getvalue()

# %% a traceback that shows a line of any file
import traceback
found = traceback.FrameSummary("CANARY", 1, "f").line

# %% compressed files
import gzip
with gzip.open("PWNED", "wb") as file:
    file.write(b"x")

# %% files by io
import io
found = [getattr(io, name)("CANARY").read() for name in ("open", "FileIO", "open_code") if hasattr(io, name)]

# %% files by pathlib
from pathlib import Path
found = Path("CANARY").read_text()

# %% files by open
found = open("CANARY").read()

# %% files by codecs
import codecs
found = codecs.open("CANARY").read()

# %% files by xml
import xml.etree.ElementTree as ET
ET.ElementTree(ET.Element("a")).write("PWNED")

# %% files by argparse
import argparse
argparse.ArgumentParser(fromfile_prefix_chars="@").parse_args(["@CANARY"])

# %% statements run by timeit
import timeit
timeit.timeit("__import__('os').system('echo > PWNED')", number=1)

# %% statements run by timeit with doors inside
import timeit
found = []
timeit.timeit("found.append(().__class__.__base__.__subclasses__())", number=1, globals={"found": found})

# %% pickles
import pickle
pickle.loads(b"cos\nsystem\n(S'echo > PWNED'\ntR.")

# %% a decorator that is a guard with a name
import json, functools
@functools.partial(functools.partial, getattr, json.dumps)
def go(): pass
found = go("__globals__") if False else functools.partial(getattr, json.dumps, "__globals__")()

# %% eval called by a library
import weakref
class C: pass
c = C()
found = weakref.finalize(c, eval, "open('CANARY').read()")()

# %% exec called by a library
import weakref
class C: pass
c = C()
weakref.finalize(c, exec, "import subprocess; subprocess.run('echo > PWNED', shell=True)")()

# %% globals called by a library
import weakref
class C: pass
c = C()
found = [weakref.finalize(c, f)() for f in (globals, locals, vars, dir)]

# %% globals called by a dataclass
import dataclasses
@dataclasses.dataclass
class C:
    __module__ = "shutil"
    x: dict = dataclasses.field(default_factory=globals)
found = C().x

# %% globals called by copy
import copy
class C:
    def __reduce_ex__(self, protocol): return globals, ()
found = copy.copy(C())

# %% the stream of a log handler
import logging
handler = logging.StreamHandler()
found = type(handler.stream.buffer.raw)("CANARY").read()

# %% the stream that logging makes for itself
import logging
for handler in logging.getLogger().handlers[:]:
    logging.getLogger().removeHandler(handler)
logging.warning("x")
for handler in logging.getLogger().handlers:
    if hasattr(handler.stream, "buffer"):
        found = type(handler.stream.buffer.raw)("CANARY").read()

# %% the base of a copied class
import logging, functools, string
found = []
for kind in (logging.StreamHandler, logging.Formatter, functools.singledispatchmethod, string.Formatter):
    for base in kind.__mro__[1:]:
        if base.__name__ == kind.__name__:
            found.append(base.__init__.__globals__)

# %% an import that runs a module by the arguments that C code passes
names = globals()
names["__built" + "ins__"]["__import__"]("canary_module", names, names, [], 0)

# %% a mutated dataclass annotation while it is read
import dataclasses
name = "x or __import__('os').system('echo > PWNED') or self.x"
class Trick:
    def __set_name__(self, owner, name): self.owner = owner
    @property
    def __class__(self):
        names = self.owner.__annotations__
        names.pop("b", None)
        names[name] = int
        return int
class C:
    a: int = Trick()
    b: int = 2
    x = 0
setattr(C, name, 1)
dataclasses.dataclass(init=False, repr=False)(C)
C() == C()

# %% the annotations of a function as expressions
def f(x: ().__class__.__base__.__subclasses__()): pass
found = f.__annotations__

# %% a default value that opens a door
import json
found = (lambda x=json.dumps.__globals__: x)()

# %% the frame functions of sys
import sys
found = [getattr(sys, name) for name in ("_getframe", "modules", "settrace", "_current_frames") if hasattr(sys, name)]

# %% super made to forward
import enum
class S(super): pass
class Meta(enum.EnumMeta): pass
class E(enum.Enum, metaclass=Meta): pass
found = S(Meta, E)._convert_("X", "os", lambda name: name == "system").system.value

# %% the reduce of any object
found = [x for x in object().__reduce_ex__(2)][0].__globals__

# %% the base of a copied timer
import timeit
for base in timeit.Timer.__mro__[1:]:
    if base.__name__ == "Timer":
        base("__import__('os').system('echo > PWNED')").timeit(1)
timeit.Timer("__import__('os').system('echo > PWNED')").timeit(1)

# %% the class of the handler that logging made
import logging
for handler in logging.getLogger().handlers[:]:
    logging.getLogger().removeHandler(handler)
logging.basicConfig()
for handler in logging.getLogger().handlers:
    fresh = type(handler)()
    if hasattr(fresh.stream, "buffer"):
        found = type(fresh.stream.buffer.raw)("CANARY").read()

# %% singledispatch that is given nothing
import functools
class Liar:
    asked = 0
    @property
    def __class__(self):
        Liar.asked += 1
        return type if Liar.asked < 2 else int
    __annotations__ = {"x": "__import__('os').system('echo > PWNED')"}
    def __call__(self, x): pass
@functools.singledispatch
def f(x): pass
later = f.register(Liar())
if callable(later):
    later(None)

# %% a class pattern whose metaclass learns to answer while it matches
import json
class Meta(type):
    def __instancecheck__(cls, obj):
        Meta.__getattr__ = lambda cls, name: ("__globals__",)
        return True
class M(metaclass=Meta): pass
def go():
    match json.dumps:
        case M(g): return g
found = go()

# %% a class pattern whose class gets another metaclass while it matches
import json
class Evil(type):
    def __getattr__(cls, name): return ("__globals__",)
class Meta(type):
    def __instancecheck__(cls, obj):
        cls.__class__ = Evil
        return True
class M(metaclass=Meta): pass
match json.dumps:
    case M(g): found = g

# %% a class pattern whose names go into the class's own dictionary while it matches
import json
class Steal:
    def __eq__(self, other):
        other["__match_args__"] = ("__globals__",)
        return True
class Meta(type):
    def __instancecheck__(cls, obj):
        cls.__dict__ == Steal()
        return True
class M(metaclass=Meta): pass
match json.dumps:
    case M(g): found = g

# %% a class pattern that becomes a dataclass while it matches
import dataclasses
class Meta(type):
    def __instancecheck__(cls, obj):
        dataclasses.dataclass(cls)
        return True
class M(metaclass=Meta):
    gi_frame: int = 0
gen = (x for x in [1])
match gen:
    case M(f): found = f

# %% a class pattern whose class changes between two looks at an attribute
import json
class Plain: __match_args__ = ("__doc__",)
class Meta(type):
    def __instancecheck__(cls, obj): return True
Evil = type.__call__(Meta, "Evil", (), {"__match_args__": ("__globals__",)})
class Box:
    looks = 0
    @property
    def M(self):
        Box.looks += 1
        return Plain if Box.looks < 2 else Evil
box = Box()
match json.dumps:
    case box.M(g): found = g

# %% a class pattern whose class changes between two looks at a name
import json
class Plain: __match_args__ = ("__doc__",)
class Meta(type):
    def __instancecheck__(cls, obj): return True
Evil = type.__call__(Meta, "Evil", (), {"__match_args__": ("__globals__",)})
class Names(dict):
    looks = 0
    def __getitem__(self, name):
        if name == "M":
            Names.looks += 1
            return Plain if Names.looks < 2 else Evil
        return super().__getitem__(name)
names = Names(f=json.dumps)
exec("match f:\n    case M(g): pass", {}, names)
found = names["g"]

# %% a class pattern in the body of a class whose names change
import json
class Plain: __match_args__ = ("__doc__",)
class Any(type):
    def __instancecheck__(cls, obj): return True
Evil = type.__call__(Any, "Evil", (), {"__match_args__": ("__globals__",)})
class Names(dict):
    looks = 0
    def __getitem__(self, name):
        if name == "M":
            Names.looks += 1
            return Plain if Names.looks < 2 else Evil
        return super().__getitem__(name)
class Meta(type):
    def __prepare__(*args): return Names()
class C(metaclass=Meta):
    match json.dumps:
        case M(g): pass
found = C.g

# %% forwarding by generic aliases
import types, json
found = types.GenericAlias(json.dumps, ()).__globals__

# %% a module imported by a traceback that makes suggestions
import traceback
error = ImportError("x", name="canary_module", name_from="y")
"".join(traceback.format_exception(error))

# %% the environment
import os
found = [str(getattr(os, name)) for name in ("environ", "getenv", "environb") if hasattr(os, name)]

# %% the cell's own module among the loaded
import __main__ as found

# %% the sandbox's own package
import rlm_sessions.guest.policy as found
"""

PERMISSIVE = r"""
# %% list every class
found = ().__class__.__bases__[0].__subclasses__()

# %% list every class by computed name
found = getattr(object, "__sub" + "classes__")()

# %% the globals of a library function
import json
found = json.dumps.__globals__

# %% the globals of a library function by getattr
import json
found = getattr(json.dumps, "__glo" + "bals__")

# %% a str subclass as a name
class Name(str):
    def __eq__(self, other):
        Name.asked += 1
        return Name.asked > Name.quiet and str.__eq__(self, other)
    __hash__ = str.__hash__
    def startswith(self, prefix): return False
import json
for quiet in range(6):
    Name.quiet, Name.asked = quiet, 0
    try:
        found = getattr(json.dumps, Name("__globals__"))
        break
    except AttributeError:
        pass

# %% frames of generators coroutines and tracebacks
try:
    1 / 0
except Exception as error:
    found = error.__traceback__.tb_frame

# %% the frame of a generator by computed name
found = getattr((x for x in [1]), "gi_" + "frame")

# %% a format string
import json
text = ("{0.__glo" + "bals__}").format(json.load)
found = text if "codecs" in text else None

# %% string.Formatter
import string, json
text = string.Formatter().format("{0.__glo" + "bals__}", json.load)
found = text if "codecs" in text else None

# %% operator.attrgetter
import operator, json
found = operator.attrgetter("__globals__")(json.dumps)

# %% object.__getattribute__
import json
found = object.__getattribute__(json.dumps, "__globals__")

# %% a code object with its bytes
def f(): pass
found = f.__code__.replace

# %% a closure of a library function
import functools
found = functools.singledispatch(lambda x: 0).__closure__[0].cell_contents

# %% a class pattern
import json
match json.dumps:
    case object(__globals__=g): found = g

# %% a class pattern by position with a literal
import json
class Meta(type):
    def __instancecheck__(cls, obj): return True
class M(metaclass=Meta):
    __match_args__ = ("__globals__",)
match json.dumps:
    case M(g): found = g

# %% start a program by os
import os
os.system("echo > PWNED")

# %% start a program by any name of os
import os
found = [getattr(os, n) for n in ("popen", "fork", "execv", "spawnl", "posix_spawn", "kill", "setuid", "_exit") if hasattr(os, n)]

# %% start a program by from import
from os import system
system("echo > PWNED")

# %% start a program by posix
import posix
posix.system("echo > PWNED")

# %% start a program by subprocess
import subprocess
subprocess.run(["touch", "PWNED"])

# %% start a program by multiprocessing
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=open, args=("PWNED", "w"))
process.start()
process.join()

# %% start a program by asyncio
import asyncio
async def main():
    process = await asyncio.create_subprocess_shell("echo > PWNED")
    await process.wait()
asyncio.run(main())

# %% start a program by the event loop
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    await loop.subprocess_shell(asyncio.SubprocessProtocol, "echo > PWNED")
asyncio.run(main())

# %% start programs by a pool
from concurrent.futures import ProcessPoolExecutor as found

# %% modules that came along
import dataclasses, random, pathlib, shutil, tempfile, typing
found = [getattr(m, n) for m, n in ((dataclasses, "sys"), (random, "_os"), (pathlib, "os"), (shutil, "os"), (typing, "sys")) if hasattr(m, n)]

# %% modules that came along by from import
from shutil import os as found

# %% modules that came along by import_module
import importlib
found = importlib.import_module("subprocess")

# %% modules by __import__
found = __import__("subprocess")

# %% modules by the arguments that C code passes
names = globals()
found = names["__built" + "ins__"]["__import__"]("subprocess", names, names, [], 0)

# %% modules by inspect
import inspect, os.path
found = inspect.getmodule(os.path.join).os

# %% modules by sys.modules
import sys
found = [sys.modules["sys"], sys.modules.get("subprocess"), sys.modules["os"]]

# %% modules by pickle
import pickle
pickle.loads(b"cos\nsystem\n(S'echo > PWNED'\ntR.")

# %% modules by a spec's loader
import importlib.util
found = importlib.util.find_spec("os").loader

# %% memory by ctypes
import ctypes
found = ctypes.pythonapi

# %% frames by sys and inspect
import sys, inspect
found = [getattr(m, n) for m, n in ((sys, "_get" + "frame"), (inspect, "currentframe"), (inspect, "stack")) if hasattr(m, n)]

# %% the garbage collector's objects
import gc
found = [getattr(gc, n) for n in ("get_objects", "get_referrers", "get_referents") if hasattr(gc, n)]

# %% the module behind a builtin
found = print.__self__

# %% the builtins
found = __builtins__

# %% the real builtins by an exec without any
found = {}
exec("import subprocess", found)

# %% source with doors in exec
import json
exec("found = json.dumps.__globals__")

# %% source with doors in compile
import json
found = eval(compile("json.dumps.__globals__", "x", "eval"))

# %% a tree with doors in compile
import ast, json
found = eval(compile(ast.parse("json.dumps.__globals__", mode="eval"), "x", "eval"))

# %% a code object from elsewhere
def f(): open("PWNED", "w").close()
exec(f.__code__.replace(co_name="g"))

# %% statements run by timeit
import timeit
timeit.timeit("__import__('os').system('echo > PWNED')", number=1)

# %% eval called by a library
import weakref
class C: pass
c = C()
weakref.finalize(c, eval, "sys.modules['os'].system('echo > PWNED')")()

# %% globals called by a library
import weakref
class C: pass
c = C()
found = weakref.finalize(c, globals)()

# %% globals called by a dataclass
import dataclasses
@dataclasses.dataclass
class C:
    __module__ = "shutil"
    x: dict = dataclasses.field(default_factory=globals)
found = C().x

# %% the descriptor of the channel to the host
import os
os.write(CHANNEL, b"forged")

# %% the descriptor of the channel by open
with open(CHANNEL, "wb", closefd=False) as file:
    file.write(b"forged")

# %% the descriptor of the channel by an opener
with open("x", "wb", opener=lambda path, flags: CHANNEL) as file:
    file.write(b"forged")

# %% the descriptor of the channel by io and os
import io, os, codecs, contextlib
for opener in (lambda: io.FileIO(CHANNEL, "w"), lambda: io.open(CHANNEL, "wb"), lambda: os.fdopen(CHANNEL, "wb")):
    with contextlib.suppress(PermissionError):
        with opener() as file:
            file.write(b"forged")

# %% closing the channel
import os
os.close(CHANNEL)

# %% signals
import signal
signal.alarm(1)

# %% sockets
import socket
found = socket.socket()

# %% the sandbox's own package
import rlm_sessions.guest.policy as found

# %% vars of the function type
import types, json
found = vars(types.FunctionType)["__globals__"].__get__(json.dumps)
"""

ONLY_AGAINST_GUARDS = {
    "string.Formatter's base class",
    "the base of a copied class",
    "the base of a copied timer",
    "the class of the handler that logging made",
    "the insides of a guard",
    "a class pattern whose class changes between two looks at an attribute",
    "a class pattern whose class changes between two looks at a name",
    "a class pattern in the body of a class whose names change",
    "enum.property reads an attribute that a subclass names",  # a way that only Python 3.12 and later have
    "a module imported by a traceback that makes suggestions",  # the same
    "a mutated dataclass annotation while it is read",  # a way that only Python 3.11 has
}
"""Attempts that get nothing in plain Python, because they are made against how a guard works."""

NOT_HELD: dict[tuple[policy.Mode, str], tuple[str, str]] = {
    ("permissive", "os through an installed package"): (
        "import pandas.io.common as c\nfound = c.os",
        "installed packages are handed out as they are",
    ),
    ("permissive", "a method table by a computed key"): (
        "import types, json\nfound = types.FunctionType.__dict__['__glo' + 'bals__'].__get__(json.dumps)",
        "the keys of a dictionary are not names, and the `__dict__` of any class can be read",
    ),
    ("permissive", "a class pattern whose names are computed"): (
        "import json\nclass Meta(type):\n    def __instancecheck__(cls, obj): return True\n"
        "class M(metaclass=Meta):\n    __match_args__ = tuple(['__glo' + 'bals__'])\n"
        "match json.dumps:\n    case M(g): found = g",
        "only literal __match_args__ are read",
    ),
    ("permissive", "code in a docstring"): (
        "import doctest, json\nfound = []\ntext = '>>> found.append(json.dumps.__globals__)'\n"
        "test = doctest.DocTestParser().get_doctest(text, {'found': found, 'json': json}, 'x', None, 0)\n"
        "doctest.DocTestRunner(verbose=False).run(test)",
        "source that a library compiles by itself is not read",
    ),
    ("permissive", "an attribute that update_wrapper copies"): (
        "import functools, json\nclass Box: pass\nbox = Box()\n"
        "functools.update_wrapper(box, json.dumps, assigned=['__glo' + 'bals__'])\nfound = vars(box)",
        "library functions that read what they are told by name are guarded one by one, not all",
    ),
    ("strict", "a private name of a library's object"): (
        "import functools, queue\nwrite = functools.cached_property(lambda obj: 'patched')\n"
        "write.attrname = '_maxsize'\nq = queue.Queue()\nwrite.__get__(q)\n"
        "found = 'patched' if write.__get__(q) == 'patched' else None",
        "cached_property writes into the dictionary of any object; nothing is known that this leads to",
    ),
}
"""What is known to get through, and why: found by a test that fails when it no longer does."""


def _attempts(text: str) -> dict[str, str]:
    parts = re.split(r"^# %% (.+)$", text, flags=re.MULTILINE)
    attempts = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert len(attempts) == len(parts) // 2, "two attempts have one name"
    return attempts


STRICT_ATTEMPTS = _attempts(STRICT)
PERMISSIVE_ATTEMPTS = _attempts(PERMISSIVE)


class Outcome:
    """What an attempt came to: its variables, what it printed, and the error that stopped it."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {}
        self.printed = ""
        self.error: BaseException | None = None

    @property
    def found(self) -> object:
        return self.namespace.get("found")


class Scene(NamedTuple):
    """A folder with a secret in a file, a place for programs to leave a mark, and a channel to forge."""

    folder: Path
    listening: int
    channel: int

    def placed(self, source: str) -> str:
        places = {"CANARY": self.folder / "canary", "PWNED": self.folder / "pwned", "CHANNEL": self.channel}
        return re.sub("|".join(places), lambda match: str(places[match[0]]), source)

    def is_channel_whole(self) -> bool:
        try:
            os.fstat(self.channel)
            return not os.read(self.listening, 100)
        except BlockingIOError:
            return True
        except OSError:
            return False


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    _set_up(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    monkeypatch.setenv("RLM_CANARY", SECRET)
    monkeypatch.chdir(tmp_path)
    listening, channel = os.pipe()
    os.set_blocking(listening, False)
    yield Scene(tmp_path, listening, channel)
    os.close(listening)
    with contextlib.suppress(OSError):
        os.close(channel)


def _set_up(folder: Path) -> None:
    (folder / "canary").write_text(SECRET + "\n")
    (folder / "canary_module.py").write_text(f"open({str(folder / 'pwned')!r}, 'w').close()\n")


def attempt(source: str, mode: policy.Mode, scene: Scene) -> Outcome:
    source = scene.placed(source)
    module = types.ModuleType("__main__")
    outcome = Outcome()
    outcome.namespace = vars(module)
    vars(module)["__builtins__"] = policy.builtins_for(mode, vars(builtins))
    with _as_main(module), (scene.folder / "printed").open("w") as printed:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                tree = policy.check(ast.parse(source), source, "<cell>", mode)
                exec(compile(tree, "<cell>", "exec", dont_inherit=True), vars(module))
            except (Exception, SystemExit) as problem:
                outcome.error = problem
    outcome.printed = (scene.folder / "printed").read_text()
    return outcome


@contextlib.contextmanager
def _as_main(module: types.ModuleType) -> Generator[None, None, None]:
    streams = sys.stdin, sys.stdout, sys.stderr
    main, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()  # a coroutine that was never awaited
    finally:
        sys.modules["__main__"] = main
        sys.modules.pop("canary_module", None)
        sys.stdin, sys.stdout, sys.stderr = streams


_DOORS = (
    *(
        os.system,
        vars(os)["popen"],
        os.fork,
        os.execv,
        os.kill,
        sys._getframe,
        subprocess.Popen,
        gc.get_objects,
    ),
    *(open, exec, eval, compile, getattr, setattr, builtins.__import__, io.FileIO, io.open_code),
)
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_INSIDES = (types.FrameType, types.CodeType, *_DESCRIPTORS)


def doors_reached(outcome: Outcome) -> list[str]:
    """Return what the variables of an attempt lead to that no cell should hold."""
    names = {key: value for key, value in outcome.namespace.items() if key != "__builtins__"}
    return sorted({told for value in _everything_in(names, 5, set()) if (told := _what_door(value))})


def _everything_in(value: object, depth: int, seen: set[int]) -> Iterator[object]:
    if depth < 0 or id(value) in seen:
        return
    seen.add(id(value))
    yield value
    inner: list[object] = []
    if isinstance(value, dict) and _what_door(value) is None:
        inner = [item for item in value.values() if not isinstance(item, _DESCRIPTORS)]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(value)
    elif isinstance(value, types.ModuleType):
        inner = list(vars(value).values())
    elif type(value).__module__ == "__main__":
        own = getattr(value, "__dict__", {})
        inner = [item for item in own.values() if not isinstance(item, _DESCRIPTORS)]
    for item in inner:
        yield from _everything_in(item, depth - 1, seen)


def _what_door(value: object) -> str | None:
    if (
        isinstance(value, types.ModuleType)
        and sys.modules.get(value.__name__) is value
        and _is_standard(value)
    ):
        return f"the module {value.__name__}"
    if isinstance(value, _INSIDES) or any(value is door for door in _DOORS):
        return repr(value)[:60]
    if isinstance(value, list) and len(value) > 100 and all(isinstance(item, type) for item in value):
        return "the classes of the interpreter"
    if isinstance(value, dict) and any(value is vars(module) for module in list(sys.modules.values())):
        return f"the globals of {value.get('__name__')}"
    return None


def _is_standard(module: types.ModuleType) -> bool:
    return module.__name__.partition(".")[0] in sys.stdlib_module_names


def harm_of(outcome: Outcome, scene: Scene) -> list[str]:
    """Return all that an attempt achieved."""
    harm = doors_reached(outcome)
    told = f"{outcome.printed} {_shown(outcome.found)}"
    if SECRET in told:
        harm.append("the secret")
    if (scene.folder / "pwned").exists():
        harm.append("a program or a file")
    if not scene.is_channel_whole():
        harm.append("the channel to the host")
    if hasattr(signal, "alarm") and signal.alarm(0):
        harm.append("an alarm")
    if outcome.found is not None and not isinstance(outcome.found, (list, dict, types.ModuleType)):
        harm.append(f"found {_shown(outcome.found)[:60]}")
    if outcome.found == "patched" or "patched" in _shown(outcome.found):
        harm.append("a patch of a library")
    return harm


def _shown(value: object) -> str:
    try:
        return repr(value)[:100_000]
    except Exception as problem:
        return type(problem).__name__


@pytest.mark.parametrize("title", STRICT_ATTEMPTS)
def test_strict_mode_holds_against(title: str, scene: Scene) -> None:
    outcome = attempt(STRICT_ATTEMPTS[title], "strict", scene)

    assert harm_of(outcome, scene) == []


@pytest.mark.parametrize("title", PERMISSIVE_ATTEMPTS)
def test_permissive_mode_stops(title: str, scene: Scene) -> None:
    outcome = attempt(PERMISSIVE_ATTEMPTS[title], "permissive", scene)

    assert harm_of(outcome, scene) == []


@pytest.mark.parametrize(("mode", "title"), NOT_HELD)
def test_what_is_known_to_get_through_still_does(mode: policy.Mode, title: str, scene: Scene) -> None:
    source, _reason = NOT_HELD[mode, title]

    outcome = attempt(source, mode, scene)

    assert harm_of(outcome, scene) != [], outcome.error


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each attempt needs a process of its own")
def test_every_attempt_does_harm_in_plain_python() -> None:
    paths = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-W", "ignore", __file__]

    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    harmless = set(done.stdout.splitlines())
    assert harmless - ONLY_AGAINST_GUARDS == set(), done.stderr[-2000:]


def _report_harmless() -> None:
    """Print the attempts that do no harm without a policy. Each runs in a fork: it may leave anything behind."""
    os.environ["RLM_CANARY"] = SECRET
    for title, source in {**STRICT_ATTEMPTS, **PERMISSIVE_ATTEMPTS}.items():
        with tempfile.TemporaryDirectory() as folder:
            child = os.fork()
            if not child:
                os._exit(_try_unguarded(source, Path(folder)))
            _, status = os.waitpid(child, 0)
            if status == 0:
                print(title)


def _try_unguarded(source: str, folder: Path) -> int:
    """Return 1 if an attempt did harm; dying of it counts as harm to the caller."""
    _set_up(folder)
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    listening, channel = os.pipe()
    os.set_blocking(listening, False)
    scene = Scene(folder, listening, channel)
    try:
        outcome = attempt(source, "off", scene)
        outcome.namespace = {"found": outcome.found}
        return bool(harm_of(outcome, scene))
    except BaseException:
        return 1


if __name__ == "__main__":
    _report_harmless()
