"""Files that are not the cell's: reading them, changing them, and every detour to them."""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_READING = {
    "open-by-path": "print(open(at['secret']).read())",
    "open-a-private-file": "print(open(at['private']).read())",
    "os-open-and-read": "import os\nprint(os.read(os.open(at['secret'], os.O_RDONLY), 999))",
    "pathlib-reads": "import pathlib\nprint(pathlib.Path(at['secret']).read_text())",
    "io-fileio-reads": "import io\nprint(io.FileIO(at['secret']).read())",
    "codecs-open-reads": "import codecs\nprint(codecs.open(at['secret'], encoding='utf-8').read())",
    "tokenize-open-reads": "import tokenize\nprint(tokenize.open(at['secret']).read())",
    "an-opener-reads": "import os\nprint(open(at['secret'], opener=lambda path, flags: os.open(path, flags)).read())",
    "mmap-reads": "import mmap\nfile = open(at['secret'])\nprint(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[:])",
    "numpy-reads": "import numpy\nprint(bytes(numpy.fromfile(at['secret'], dtype='uint8')))",
    "linecache-reads": "import linecache\nprint(linecache.getline(at['secret'], 1))",
    "fileinput-reads": "import fileinput\nprint(*fileinput.input([at['secret']]))",
    "a-copy-is-read": """
import shutil, tempfile
copy = tempfile.gettempdir() + '/copy'
shutil.copyfile(at['secret'], copy)
print(open(copy).read())
""",
    "sendfile-copies-it": """
import os, tempfile
source = os.open(at['secret'], os.O_RDONLY)
target = os.open(tempfile.gettempdir() + '/sent', os.O_RDWR | os.O_CREAT)
os.sendfile(target, source, 0, 999)
print(os.pread(target, 999, 0))
""",
    "an-archive-takes-it": """
import io, tarfile
held = io.BytesIO()
archive = tarfile.open(fileobj=held, mode='w')
archive.add(at['secret'])
archive.close()
print(held.getvalue())
""",
    "a-file-handler-of-a-loader-reads": """
import importlib.machinery
print(importlib.machinery.SourceFileLoader('x', at['secret']).get_data(at['secret']))
""",
    "a-module-outside-is-imported": "import sys\nsys.path.append(at['home'])\nimport secretmodule\nprint(secretmodule.WORD)",
    "a-program-outside-is-run": "import runpy\nprint(runpy.run_path(at['home'] + '/secretmodule.py')['WORD'])",
    "a-spec-loads-a-module-outside": """
import importlib.util
spec = importlib.util.spec_from_file_location('stolen', at['home'] + '/secretmodule.py')
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.WORD)
""",
    "a-folder-outside-is-listed": "import os\nprint(os.listdir(at['home']))",
    "glob-finds-names-outside": "import glob\nprint(glob.glob(at['home'] + '/*'))",
    "scandir-walks-outside": "import os\nprint([entry.path for entry in os.scandir(at['home'])])",
    "a-traceback-quotes-the-file": "exec(compile('1/0', at['secret'], 'exec'))",
    "warnings-quote-the-file": "import warnings\nwarnings.warn_explicit('look', UserWarning, at['secret'], 1)",
    "a-message-catalogue-is-pointed-at-it": """
import configparser
try:
    configparser.ConfigParser().read_file(open(at['secret']))
except configparser.Error as problem:
    print(problem)
""",
    "the-c-library-reads": """
import ctypes
c = ctypes.CDLL(None)
held = ctypes.create_string_buffer(999)
c.read(c.open(at['secret'].encode(), 0), held, 998)
print(held.value)
""",
    "a-raw-system-call-reads": """
import ctypes
c = ctypes.CDLL(None)
held = ctypes.create_string_buffer(999)
c.syscall(at['calls']['read'], c.syscall(at['calls']['openat'], -100, at['secret'].encode(), 0, 0), held, 998)
print(held.value)
""",
    "a-linked-name-reads": """
import os, tempfile
link = tempfile.gettempdir() + '/hard'
os.link(at['secret'], link)
print(open(link).read())
""",
}

_WRITING = {
    "open-for-writing": "open(at['profile'], 'w').write('changed')",
    "open-for-appending": "open(at['profile'], 'a').write('changed')",
    "pathlib-writes": "import pathlib\npathlib.Path(at['home'], 'new.txt').write_text('changed')",
    "os-open-creates": "import os\nos.open(at['home'] + '/new.txt', os.O_CREAT | os.O_WRONLY)",
    "a-file-is-removed": "import os\nos.remove(at['profile'])",
    "a-file-is-renamed": "import os\nos.rename(at['profile'], at['profile'] + '.old')",
    "a-file-is-cut-off": "import os\nos.truncate(at['profile'], 0)",
    "a-file-gets-another-mode": "import os\nos.chmod(at['profile'], 0o777)",
    "a-file-gets-another-time": "import os\nos.utime(at['profile'], (1, 1))",
    "a-folder-is-made": "import os\nos.makedirs(at['home'] + '/new/folder')",
    "a-link-is-made": "import os\nos.symlink('/etc', at['home'] + '/link')",
    "a-folder-is-wiped": "import shutil\nshutil.rmtree(at['home'] + '/kept')",
    "a-log-is-written": "import logging\nlogging.FileHandler(at['home'] + '/new.log').emit(logging.makeLogRecord({}))",
    "a-database-is-made": "import sqlite3\nsqlite3.connect(at['home'] + '/new.db').execute('create table t (x)')",
    "a-shelf-is-made": "import shelve\nshelve.open(at['home'] + '/new').close()",
    "the-c-library-writes": "import ctypes\nc = ctypes.CDLL(None)\nc.write(c.open(at['profile'].encode(), 1), b'changed', 7)",
}

_PROJECT = "{at['project']}/"
_READ_ONLY = {
    "a-read-only-project-is-written": "open(f'" + _PROJECT + "data.txt', 'w').write('changed')",
    "a-read-only-project-gets-a-file": "open(f'" + _PROJECT + "new.txt', 'w').write('changed')",
    "a-read-only-project-loses-a-file": "import os\nos.remove(f'" + _PROJECT + "data.txt')",
    "a-read-only-project-is-made-executable": "import os\nos.chmod(f'" + _PROJECT + "data.txt', 0o777)",
    "a-read-only-project-is-touched": "import os\nos.utime(f'" + _PROJECT + "data.txt', (1, 1))",
    "a-read-only-project-is-renamed-in": "import os\nos.rename(f'"
    + _PROJECT
    + "data.txt', f'"
    + _PROJECT
    + "gone.txt')",
    "a-read-only-project-is-mapped-for-writing": """
import ctypes, os
fd = os.open(at['project'] + '/data.txt', os.O_RDONLY)
c = ctypes.CDLL(None)
c.mmap.restype = ctypes.c_void_p
address = c.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
if c.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 3) == 0:
    ctypes.memmove(address, b'changed', 7)
""",
    "a-read-only-project-is-mounted-anew": """
import ctypes
c = ctypes.CDLL(None)
print(c.mount(None, at['project'].encode(), None, ctypes.c_ulong(32 | 4096), None))
open(at['project'] + '/data.txt', 'w').write('changed')
""",
}

_LINKS = {
    "a-link-of-the-project-is-read": "print(open(at['project'] + '/outward').read())",
    "a-linked-folder-of-the-project-is-read": "print(open(at['project'] + '/folder/secret.txt').read())",
    "the-parent-of-the-project-is-read": "import os\nos.chdir(at['project'])\nprint(open('../home/secret.txt').read())",
    "a-link-of-its-own-is-read": """
import os, tempfile
os.symlink(at['secret'], tempfile.gettempdir() + '/mine')
print(open(tempfile.gettempdir() + '/mine').read())
""",
    "a-link-to-the-root-is-read": """
import os, tempfile
os.symlink('/', tempfile.gettempdir() + '/root')
print(open(tempfile.gettempdir() + '/root' + at['secret']).read())
""",
}

_WRITING_LINKS = {
    "a-link-of-the-project-is-written": "open(at['project'] + '/outprofile', 'w').write('changed')",
    "a-link-made-in-the-project-is-written": """
import os
os.symlink(at['home'], at['project'] + '/way')
open(at['project'] + '/way/profile', 'w').write('changed')
""",
    "a-file-is-moved-out-of-the-project": "import os\nos.rename(at['project'] + '/data.txt', at['home'] + '/moved')",
    "a-file-of-the-project-is-linked-outside": "import os\nos.link(at['project'] + '/data.txt', at['home'] + '/linked')",
    "a-file-outside-is-changed-by-a-linked-name": """
import os
os.link(at['profile'], at['project'] + '/mine')
open(at['project'] + '/mine', 'w').write('changed')
""",
}

_MODES = {
    "a-program-is-made-to-run-as-its-owner": "import os\nos.chmod(at['project'] + '/data.txt', 0o4755)",
    "a-program-is-made-to-run-as-its-group": "import os\nos.chmod(at['project'] + '/data.txt', 0o2755)",
    "a-file-is-born-to-run-as-its-owner": """
import os
os.umask(0)
os.open(at['project'] + '/born', os.O_CREAT | os.O_WRONLY, 0o6755)
""",
    "an-open-file-is-made-to-run-as-its-owner": "import os\nos.fchmod(os.open(at['project'] + '/data.txt', os.O_RDWR), 0o4755)",
    "a-newer-call-makes-it-run-as-its-owner": """
import ctypes
ctypes.CDLL(None).syscall(452, -100, (at['project'] + '/data.txt').encode(), 0o4755, 0)
""",
}

_NODES = {
    "a-pipe-is-made-by-name": "import os\nos.mkfifo(at['project'] + '/pipe')",
    "a-device-is-made": "import os, stat\nos.mknod(at['project'] + '/disk', 0o666 | stat.S_IFBLK, os.makedev(8, 0))",
    "a-socket-is-made-by-name": """
import socket
socket.socket(socket.AF_UNIX).bind(at['project'] + '/s')
""",
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("reading outside", "secret", _READING, control="succeeds", costs="cell"),
    *attacks("writing outside", "written", _WRITING, control="succeeds", costs="cell"),
    *attacks(
        "writing outside",
        "written",
        {"a-file-gets-another-owner": "import os\nos.chown(at['profile'], 12345, 12345)"},
        control="as root",
        costs="cell",
    ),
    *attacks(
        "project",
        "secret",
        {
            "a-hidden-project-is-read": "print(open(at['project'] + '/data.txt').read())",
            "a-hidden-project-is-listed": "import os\nprint(os.listdir(at['project']))",
        },
        project="none",
        control="succeeds",
        costs="cell",
    ),
    *attacks("project", "written", _READ_ONLY, project="read", control="none", costs="cell"),
    *attacks(
        "project",
        "claimed",
        {
            "a-lease-holds-up-who-opens-a-file": """
import fcntl, os, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(at['project'] + '/data.txt', os.O_RDONLY), 1024, fcntl.F_RDLCK)
print(at['proof'])
""",
            "a-lock-is-held-on-a-file-it-may-only-read": """
import fcntl
held = open(at['project'] + '/data.txt')
fcntl.flock(held, fcntl.LOCK_EX)
print(at['proof'])
""",
        },
        project="read",
        costs="cell",
    ),
    *attacks("symlinks", "secret", _LINKS, project="write", control="succeeds", costs="cell"),
    *attacks("symlinks", "written", _WRITING_LINKS, project="write", control="succeeds", costs="cell"),
    *attacks("file modes", "written", _MODES, project="write", control="none", costs="cell"),
    *attacks("file modes", "written", _NODES, project="write", control="none", costs="cell"),
)
