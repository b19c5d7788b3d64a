"""Ways through the language to what it does not hand out: frames, templates, modules, pickles.

Each ends in reading the secret file, so that a way that is found is known by what came back.
"""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_FRAMES = {
    "the-calling-frame": """
import sys
frame = sys._getframe()
while frame.f_back:
    frame = frame.f_back
print(frame.f_builtins['open'](at['secret']).read())
""",
    "the-frame-of-a-traceback": """
try:
    1 / 0
except ZeroDivisionError as problem:
    frame = problem.__traceback__.tb_frame
    while frame.f_back:
        frame = frame.f_back
    print(frame.f_globals['__builtins__'].open(at['secret']).read())
""",
    "the-frame-of-a-generator": """
def steps():
    yield made.gi_frame.f_back
made = steps()
frame = [found for found in made][0]
while 'os' not in frame.f_globals:
    frame = frame.f_back
print(frame.f_globals['os'].popen('cat ' + at['secret']).read())
""",
    "the-frame-of-a-coroutine": """
async def waits():
    pass
made = waits()
frame = made.cr_frame
made.close()
print(frame.f_builtins['open'](at['secret']).read())
""",
    "the-frames-of-other-threads": """
import sys
for frame in sys._current_frames().values():
    print(frame.f_builtins['open'](at['secret']).read())
""",
    "the-inspected-stack": "import inspect\nprint(inspect.stack()[-1].frame.f_builtins['open'](at['secret']).read())",
    "a-walked-stack": """
import traceback
for frame, line in traceback.walk_stack(None):
    print(frame.f_builtins['open'](at['secret']).read())
""",
    "a-tracing-function": """
import sys
def watch(frame, event, argument):
    sys.settrace(None)
    print(frame.f_builtins['open'](at['secret']).read())
sys.settrace(watch)
(lambda: 0)()
""",
    "a-profiling-function-of-threads": """
import threading
threading.setprofile(lambda frame, event, argument: print(frame.f_builtins['open'](at['secret']).read()))
thread = threading.Thread(target=int)
thread.start()
thread.join()
""",
    "the-collector-knows-everything": """
import gc, textwrap
for found in gc.get_referents(textwrap.dedent):
    if type(found) is dict and '__builtins__' in found:
        print(found['__builtins__']['open'](at['secret']).read())
""",
    "the-globals-of-a-function": "print(call.__func__.__globals__['__builtins__']['open'](at['secret']).read())",
    "the-globals-of-a-library-function": """
import textwrap
print(textwrap.dedent.__globals__['__builtins__']['open'](at['secret']).read())
""",
    "the-builtins-of-a-function": "print((lambda: 0).__builtins__['open'](at['secret']).read())",
    "the-subclasses-of-everything": """
for kind in ().__class__.__base__.__subclasses__():
    if kind.__name__ == '_wrap_close':
        print(kind.__init__.__globals__['popen']('cat ' + at['secret']).read())
""",
    "the-subclasses-of-a-file-class": """
import io
for kind in type.__subclasses__(io.RawIOBase.__mro__[1]):
    if kind.__name__ == 'FileIO':
        print(kind(at['secret']).read())
""",
    "a-name-written-with-other-letters": """
import textwrap
print(textwrap.dedent.__g\N{MATHEMATICAL ITALIC SMALL L}obals__['__builtins__']['open'](at['secret']).read())
""",
    "a-name-put-together-at-run-time": """
import textwrap
print(getattr(textwrap.dedent, '__glo' + 'bals__')['__builtins__']['open'](at['secret']).read())
""",
    "a-name-that-changes-when-looked-at-again": """
import textwrap
class Name(str):
    looks = 0
    def __eq__(self, other):
        Name.looks += 1
        return Name.looks > Name.first and str.__eq__(self, other)
    __hash__ = str.__hash__
for Name.first in range(6):
    Name.looks = 0
    found = getattr(textwrap.dedent, Name('__globals__'), None)
    if found:
        print(found['__builtins__']['open'](at['secret']).read())
""",
    "a-getter-of-attributes": """
import operator, textwrap
print(operator.attrgetter('__globals__')(textwrap.dedent)['__builtins__']['open'](at['secret']).read())
""",
    "a-caller-of-methods": """
import operator, textwrap
found = operator.methodcaller('__getattribute__', '__globals__')(textwrap.dedent)
print(found['__builtins__']['open'](at['secret']).read())
""",
    "a-pattern-that-reads-attributes": """
import textwrap
match textwrap.dedent:
    case object(__globals__=found):
        print(found['__builtins__']['open'](at['secret']).read())
""",
    "a-class-that-names-what-patterns-read": """
import textwrap
class Meta(type):
    def __instancecheck__(cls, value):
        return True
class Any(metaclass=Meta):
    __match_args__ = ('__globals__',)
match textwrap.dedent:
    case Any(found):
        print(found['__builtins__']['open'](at['secret']).read())
""",
    "the-own-method-of-a-builtin": "print(print.__self__.open(at['secret']).read())",
    "an-attribute-of-object-itself": """
import textwrap
print(object.__getattribute__(textwrap.dedent, '__globals__')['__builtins__']['open'](at['secret']).read())
""",
    "a-function-around-foreign-code": """
import types
print(types.FunctionType(compile("open(at['secret']).read()", 'x', 'eval'), {'at': at})())
""",
    "source-text-run-without-a-look": "exec('import os\\nprint(os.popen(\"cat \" + at[\"secret\"]).read())', {'at': at})",
    "a-library-that-evaluates-when-it-leaves": """
import contextlib
with contextlib.ExitStack() as stack:
    stack.callback(exec, f"print(open({at['secret']!r}).read())")
""",
    "a-library-that-evaluates-at-the-end-of-an-object": """
import weakref
class Object: pass
end = weakref.finalize(Object(), exec, f"print(open({at['secret']!r}).read())")
""",
    "a-library-that-evaluates-to-compare": """
import heapq
print(list(heapq.merge([f"print(open({at['secret']!r}).read()) or 1"], ['1'], key=eval)))
""",
    "an-annotation-that-is-evaluated": """
import typing
class Holder:
    field: "print(__import__('os').popen('cat ' + at['secret']).read())"
typing.get_type_hints(Holder, {'at': at})
""",
    "a-default-value-of-a-made-class": """
import dataclasses
made = dataclasses.make_dataclass('Made', [('x', "print(open(at['secret']).read())", None)])
print(made.__init__.__globals__['__builtins__']['open'](at['secret']).read())
""",
    "a-timed-statement": "import timeit\ntimeit.timeit('print(open(at[\"secret\"]).read())', number=1, globals={'at': at})",
    "a-documented-example": """
import doctest
text = f'>>> print(open({at["secret"]!r}).read())\\nnothing\\n'
write = __import__('sys').stdout.write
doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, {}, 'x', None, 0), out=write)
""",
    "a-debugger-runs-it": "import bdb\nbdb.Bdb().run('print(open(at[\"secret\"]).read())', {'at': at})",
    "a-profiler-runs-it": "import cProfile\ncProfile.runctx('print(open(at[\"secret\"]).read())', {'at': at}, {})",
}

_TEMPLATES = {
    "a-template-follows-attributes": """
import string, textwrap
found, key = string.Formatter().get_field('0.__globals__[__builtins__]', (textwrap.dedent,), {})
print(found['open'](at['secret']).read())
""",
    "a-formatter-of-its-own-follows-attributes": """
import string, textwrap
class Taker(string.Formatter):
    def format_field(self, value, spec):
        print(value['open'](at['secret']).read())
        return ''
Taker().format('{0.__globals__[__builtins__]}', textwrap.dedent)
""",
    "a-mapping-that-is-formatted-follows-attributes": """
import string, textwrap
class Catching(dict):
    def __missing__(self, name):
        return textwrap.dedent
taken = string.Formatter().get_field('x.__globals__[__builtins__]', (), Catching())
print(taken[0]['open'](at['secret']).read())
""",
    "a-log-style-follows-attributes": """
import logging, string, textwrap
class Taker(string.Formatter):
    def convert_field(self, value, conversion):
        print(value['open'](at['secret']).read())
        return value
Taker().vformat('{0.__globals__[__builtins__]!x}', [textwrap.dedent], {})
""",
}

_TEMPLATE_TEXTS = {
    "a-template-prints-the-insides": "found = '{0.__func__.__globals__}'.format(call)",
    "a-template-prints-a-module": "import textwrap\nfound = '{0.__globals__[re]}'.format(textwrap.dedent)",
    "a-template-map-prints-the-insides": "found = '{x.__func__.__globals__}'.format_map({'x': call})",
    "a-template-in-a-variable-prints-the-insides": """
take = str.format
found = take('{0.__func__.__globals__}', call)
""",
    "a-log-record-prints-the-insides": """
import logging
record = logging.makeLogRecord({'msg': 'x', 'given': call})
found = logging.Formatter('{given.__func__.__globals__}', style='{').format(record)
""",
}

_MODULES = {
    "a-module-in-a-module": "import random\nprint(random._os.popen('cat ' + at['secret']).read())",
    "a-module-behind-a-public-name": "import json\nprint(json.codecs.builtins.open(at['secret']).read())",
    "a-module-behind-enumerations": "import enum\nprint(enum.sys.modules['os'].popen('cat ' + at['secret']).read())",
    "a-module-behind-dataclasses": "import dataclasses\nprint(dataclasses.sys.modules['io'].FileIO(at['secret']).read())",
    "a-module-behind-types": "import typing\nprint(typing.sys.modules['os'].popen('cat ' + at['secret']).read())",
    "a-module-behind-the-event-loop": """
import asyncio
print(asyncio.base_events.subprocess.check_output(['cat', at['secret']]))
""",
    "a-module-named-at-run-time": "print(__import__('o' + 's').popen('cat ' + at['secret']).read())",
    "a-module-by-the-import-library": """
import importlib
print(importlib.import_module('subprocess').check_output(['cat', at['secret']]))
""",
    "the-loader-of-a-module": "import json\nprint(json.__loader__.get_data(at['secret']))",
    "the-finder-of-built-in-modules": """
import sys
for finder in sys.meta_path:
    if hasattr(finder, 'create_module'):
        posix = finder.load_module('posix')
        print(posix.read(posix.open(at['secret'], 0), 999))
""",
    "a-module-by-resolved-name": "import pkgutil\nprint(pkgutil.resolve_name('os:popen')('cat ' + at['secret']).read())",
    "a-module-by-located-name": "import pydoc\nprint(pydoc.locate('os.popen')('cat ' + at['secret']).read())",
    "a-module-by-a-mocked-name": """
import unittest.mock
print(unittest.mock.patch('os.popen').getter().popen('cat ' + at['secret']).read())
""",
    "a-module-by-a-configured-logger": """
import logging.config
maker = logging.config.DictConfigurator({})
print(maker.convert('ext://os.popen')('cat ' + at['secret']).read())
""",
    "every-name-of-a-module-is-taken": "from os import *\nprint(popen('cat ' + at['secret']).read())",
    "a-module-made-anew": """
import sys
known = dict(sys.modules)
print(known['posix'].open(at['secret'], 0) and known['io'].FileIO(at['secret']).read())
""",
    "a-database-attaches-a-file": """
import sqlite3, tempfile
base = sqlite3.connect(tempfile.gettempdir() + '/base')
base.execute('attach ? as other', (at['home'] + '/new.db',))
base.execute('create table other.t as select 1')
print(open(at['secret']).read())
""",
    "the-machine-code-of-the-interpreter-runs-it": """
import ctypes
ctypes.pythonapi.PyRun_SimpleString(f"print(open({at['secret']!r}).read())".encode())
""",
}

_PICKLES = {
    "a-pickle-that-opens": """
import pickle
print(pickle.loads(f"cbuiltins\\nopen\\n(V{at['secret']}\\ntR.".encode()).read())
""",
    "a-pickle-that-evaluates": """
import pickle
print(pickle.loads(f"cbuiltins\\neval\\n(Vopen({at['secret']!r}).read()\\ntR.".encode()))
""",
    "an-object-that-is-reduced-to-a-call": """
import os, pickle
class Bomb:
    def __reduce__(self):
        return os.popen, ('cat ' + at['secret'],)
print(pickle.loads(pickle.dumps(Bomb())).read())
""",
    "an-object-that-is-copied-into-a-call": """
import copy
class Bomb:
    def __reduce__(self):
        return eval, (f"open({at['secret']!r}).read()",)
print(copy.copy(Bomb()))
""",
    "a-shelf-that-evaluates": """
import shelve, tempfile
class Bomb:
    def __reduce__(self):
        return eval, (f"__import__('os').popen('cat ' + {at['secret']!r}).read()",)
shelf = shelve.open(tempfile.gettempdir() + '/shelf')
shelf['x'] = Bomb()
print(shelf['x'])
""",
    "marshalled-code-that-is-run": """
import marshal
code = compile(f"print(open({at['secret']!r}).read())", 'x', 'exec')
exec(marshal.loads(marshal.dumps(code)))
""",
    "an-unpickler-in-python": """
import pickle
class Taker(pickle._Unpickler):
    pass
import io
print(Taker(io.BytesIO(f"cbuiltins\\nopen\\n(V{at['secret']}\\ntR.".encode())).load().read())
""",
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("frames", "secret", _FRAMES, control="succeeds", costs="cell"),
    *attacks("format strings", "secret", _TEMPLATES, control="succeeds", costs="cell"),
    *attacks(
        "format strings",
        "claimed",
        {
            name: f"{code.strip()}\nif 'module' in found:\n    print(at['proof'])"
            for name, code in _TEMPLATE_TEXTS.items()
        },
        control="succeeds",
        costs="cell",
    ),
    *attacks("imports", "secret", _MODULES, control="succeeds", costs="cell"),
    *attacks("pickle", "secret", _PICKLES, control="succeeds", costs="cell"),
)
