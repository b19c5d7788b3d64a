"""Which modules a cell may import, and which of their names it gets: data, and looking it up.

The permissive list says what is left out; the strict list says what there is. Both are about Python's own library:
permissive mode hands out installed packages as they are, strict mode has none.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping

from ._names import Door

_PROCESSES = Door(
    "it starts other programs", "Threads (concurrent.futures.ThreadPoolExecutor) and asyncio work here."
)
_NETWORK = Door("there is no network here", "Ask for the data to be given to you as a variable or a file.")
_MACHINE_CODE = Door(
    "it reads and writes the memory of the process", "Use struct, array, memoryview or numpy."
)
_SIGNALS = Door("signals belong to the session's host", "Use asyncio.wait_for, or look at time.monotonic().")
_TERMINAL = Door("there is no terminal here", "Use print.")
_DESCRIPTORS = Door("it works on the process's file descriptors", "Open files by their path.")
_RUNNER = Door("it runs source that the policy has not read", "Use exec(), or put the code into the cell.")
_MACHINERY = Door("it opens the import machinery", "Use an import statement.")
_INTERNAL = Door("it is an internal part of the interpreter", "Use the public module that stands before it.")
_OURS = Door("it is part of the sandbox itself", "It has nothing that a cell could need.")
_FRAMES = Door(
    "it opens the interpreter's running frames", "traceback.format_exc() tells where an error came from."
)
_IDENTITY = Door("it changes what the process is or where it runs", "Leave that to the sandbox.")
_NOT_STRICT = Door(
    "this sandbox has no other wall than its rules, so only modules that purely compute can be imported",
    "Write it in plain Python, or ask for a sandbox with a jail.",
)
_NOT_HANDED_OUT = Door(
    "it is not among the names that this sandbox hands out", "Use what dir() of the module shows."
)


def _doors(door: Door, names: str) -> dict[str, Door]:
    return dict.fromkeys(names.split(), door)


REFUSED_MODULES: Mapping[str, Door] = {
    **_doors(
        _PROCESSES,
        "subprocess multiprocessing concurrent.futures.process asyncio.subprocess pty pipes popen2",
    ),
    **_doors(_PROCESSES, "webbrowser antigravity ensurepip venv asyncio.unix_events asyncio.windows_events"),
    **_doors(
        _NETWORK, "socket ssl select selectors socketserver asyncore asynchat ftplib http.client http.server"
    ),
    **_doors(
        _NETWORK, "imaplib nntplib poplib smtpd smtplib telnetlib urllib.request urllib.robotparser xmlrpc"
    ),
    **_doors(_NETWORK, "wsgiref.simple_server logging.config"),
    **_doors(_MACHINE_CODE, "ctypes cffi"),
    **_doors(_SIGNALS, "signal faulthandler"),
    **_doors(_TERMINAL, "readline rlcompleter curses tty termios syslog msvcrt winreg winsound"),
    **_doors(_DESCRIPTORS, "fcntl posix nt"),
    **_doors(_RUNNER, "runpy code codeop pdb bdb trace profile cProfile marshal pydoc"),
    **_doors(_MACHINERY, "imp zipimport modulefinder importlib.machinery importlib.abc importlib.readers"),
    **_doors(_IDENTITY, "spwd nis crypt"),
    **_doors(_OURS, "RestrictedPython"),
}

_OS_NAMES = """
    DirEntry PathLike altsep curdir defpath devnull environ environb error extsep linesep name pardir path pathsep sep
    stat_result statvfs_result terminal_size times_result uname_result supports_bytes_environ
    access chdir chmod cpu_count fsdecode fsencode fspath get_exec_path get_terminal_size getcwd getcwdb getegid
    getenv getenvb geteuid getgid getgroups getloadavg getlogin getpid getppid getrandom getuid link listdir lstat
    makedirs mkdir process_cpu_count putenv readlink remove removedirs rename renames replace rmdir scandir
    sched_getaffinity stat statvfs strerror symlink sysconf times truncate umask uname unlink unsetenv urandom utime
    walk cpu_count supports_follow_symlinks supports_fd supports_dir_fd supports_effective_ids isatty sync
    open close read write fdopen fsync fstat
"""
_SYS_NAMES = """
    api_version argv base_exec_prefix base_prefix builtin_module_names byteorder copyright dont_write_bytecode
    exc_info exception exec_prefix executable exit flags float_info float_repr_style get_int_max_str_digits
    getallocatedblocks getdefaultencoding getfilesystemencodeerrors getfilesystemencoding getrecursionlimit
    getrefcount getsizeof getswitchinterval hash_info hexversion implementation int_info intern is_finalizing maxsize
    maxunicode modules orig_argv path platform platlibdir prefix pycache_prefix set_int_max_str_digits setrecursionlimit
    setswitchinterval stderr stdin stdlib_module_names stdout thread_info version version_info warnoptions
    getwindowsversion
"""
_OS_CONSTANTS = ("O_", "SEEK_", "F_OK", "R_OK", "W_OK", "X_OK", "EX_", "GRND_", "SC_", "ST_")

ONLY: Mapping[str, frozenset[str]] = {
    "os": frozenset(_OS_NAMES.split()) | {name for name in dir(os) if name.startswith(_OS_CONSTANTS)},
    "sys": frozenset(_SYS_NAMES.split()),
    "gc": frozenset(
        "collect enable disable isenabled get_count get_stats get_threshold set_threshold freeze unfreeze is_tracked "
        "is_finalized get_freeze_count".split()
    ),
    "resource": frozenset(
        "getrusage getrlimit getpagesize error struct_rusage RUSAGE_SELF RUSAGE_CHILDREN RUSAGE_THREAD RLIM_INFINITY "
        "RLIMIT_AS RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS RLIMIT_STACK".split()
    ),
    "importlib": frozenset("import_module reload invalidate_caches metadata resources util".split()),
    "importlib.util": frozenset({"find_spec"}),
    "pkgutil": frozenset("iter_modules walk_packages get_data extend_path ModuleInfo".split()),
}
"""Modules of permissive mode of which only these names are handed out."""

WITHOUT: Mapping[str, Mapping[str, Door]] = {
    "asyncio": {
        **_doors(_PROCESSES, "create_subprocess_exec create_subprocess_shell subprocess"),
        **_doors(_NETWORK, "open_connection start_server open_unix_connection start_unix_server"),
    },
    "concurrent.futures": _doors(_PROCESSES, "ProcessPoolExecutor process"),
    "inspect": _doors(
        _FRAMES,
        "currentframe stack trace getouterframes getinnerframes getframeinfo getargvalues getattr_static",
    ),
    "logging": _doors(_FRAMES, "currentframe"),
    "threading": _doors(_FRAMES, "settrace setprofile settrace_all_threads setprofile_all_threads"),
    "shutil": _doors(_IDENTITY, "chown"),
    "time": _doors(_IDENTITY, "clock_settime clock_settime_ns"),
    "io": _doors(_DESCRIPTORS, "open_code"),
    "pickle": _doors(_RUNNER, "_Unpickler _load _loads"),
}
"""Names that permissive mode leaves out of a module, and says why when they are asked for."""

ALL = "*"

STRICT_MODULES: Mapping[str, str | frozenset[str]] = {
    **dict.fromkeys(
        "__future__ bisect calendar cmath collections.abc colorsys contextvars csv datetime decimal difflib errno "
        "fnmatch fractions getopt graphlib hashlib heapq hmac html html.entities html.parser ipaddress itertools json "
        "json.decoder json.encoder keyword math numbers pprint quopri random re reprlib secrets stat statistics "
        "stringprep struct textwrap token unicodedata urllib.parse zlib array binascii string operator "
        "queue time typing copy timeit base64 collections functools enum dataclasses contextlib".split(),
        ALL,
    ),
    "abc": frozenset(
        "ABC ABCMeta abstractmethod abstractclassmethod abstractproperty abstractstaticmethod".split()
    ),
    "ast": frozenset(
        "parse literal_eval dump unparse walk iter_child_nodes get_docstring get_source_segment NodeVisitor "
        "NodeTransformer fix_missing_locations".split()
    )
    | {name for name, value in vars(ast).items() if isinstance(value, type) and issubclass(value, ast.AST)},
    "asyncio": frozenset(
        "run sleep gather create_task ensure_future wait wait_for as_completed shield timeout timeout_at TaskGroup "
        "Queue PriorityQueue LifoQueue QueueEmpty QueueFull Lock Event Condition Semaphore BoundedSemaphore Barrier "
        "Future Task CancelledError TimeoutError InvalidStateError iscoroutine iscoroutinefunction isfuture "
        "FIRST_COMPLETED FIRST_EXCEPTION ALL_COMPLETED".split()
    ),
    "bz2": frozenset({"compress", "decompress", "BZ2Compressor", "BZ2Decompressor"}),
    "codecs": frozenset(
        "encode decode getincrementaldecoder getincrementalencoder BOM_UTF8 BOM_UTF16 BOM_UTF16_LE BOM_UTF16_BE "
        "BOM_UTF32 BOM_LE BOM_BE BOM".split()
    ),
    "gc": frozenset("collect enable disable isenabled get_count get_stats get_threshold".split()),
    "gzip": frozenset({"compress", "decompress", "BadGzipFile"}),
    "http": frozenset({"HTTPStatus", "HTTPMethod"}),
    "io": frozenset({"StringIO", "BytesIO", "UnsupportedOperation", "SEEK_SET", "SEEK_CUR", "SEEK_END"}),
    "logging": frozenset(
        "debug info warning error exception critical log getLogger basicConfig disable getLevelName addLevelName "
        "DEBUG INFO WARNING WARN ERROR CRITICAL FATAL NOTSET Formatter Handler StreamHandler NullHandler Filter "
        "Logger LoggerAdapter LogRecord".split()
    ),
    "lzma": frozenset({"compress", "decompress", "LZMACompressor", "LZMADecompressor", "LZMAError"}),
    "os": frozenset(
        "path sep altsep extsep pathsep linesep curdir pardir devnull name fspath PathLike".split()
    ),
    "os.path": frozenset(
        "basename commonpath commonprefix dirname isabs join normcase normpath split splitdrive splitext splitroot sep "
        "altsep extsep pathsep curdir pardir".split()
    ),
    "pathlib": frozenset({"PurePath", "PurePosixPath", "PureWindowsPath"}),
    "shlex": frozenset({"split", "quote", "join"}),
    "sys": frozenset(
        "version version_info hexversion implementation platform maxsize maxunicode byteorder float_info int_info "
        "hash_info float_repr_style getsizeof getrecursionlimit getdefaultencoding intern exc_info exception exit "
        "get_int_max_str_digits getrefcount api_version copyright".split()
    ),
    "tomllib": frozenset({"loads", "load", "TOMLDecodeError"}),
    "traceback": frozenset(
        "format_exc print_exc format_exception format_exception_only print_exception".split()
    ),
    "types": frozenset(
        "SimpleNamespace MappingProxyType MethodType GenericAlias NoneType UnionType EllipsisType NotImplementedType "
        "FunctionType LambdaType BuiltinFunctionType BuiltinMethodType GeneratorType CoroutineType AsyncGeneratorType "
        "ModuleType DynamicClassAttribute coroutine".split()
    ),
    "urllib": frozenset({"parse"}),
    "uuid": frozenset(
        "UUID uuid3 uuid4 uuid5 NAMESPACE_DNS NAMESPACE_URL NAMESPACE_OID NAMESPACE_X500 RESERVED_NCS RFC_4122".split()
    ),
    "warnings": frozenset(
        "warn catch_warnings simplefilter filterwarnings resetwarnings WarningMessage".split()
    ),
    "weakref": frozenset(
        "ref WeakKeyDictionary WeakValueDictionary WeakSet WeakMethod ReferenceType finalize getweakrefcount".split()
    ),
    "xml": frozenset({"etree", "sax"}),
    "xml.etree": frozenset({"ElementTree"}),
    "xml.etree.ElementTree": frozenset(
        "Element SubElement Comment ProcessingInstruction QName fromstring fromstringlist XML XMLID tostring "
        "tostringlist indent iselement ParseError TreeBuilder canonicalize".split()
    ),
    "xml.sax": frozenset({"saxutils"}),
    "xml.sax.saxutils": frozenset({"escape", "unescape", "quoteattr"}),
    "zoneinfo": frozenset({"ZoneInfo", "ZoneInfoNotFoundError", "available_timezones"}),
}
"""Modules of strict mode. "*" stands for the public names that the module documents (`__all__`)."""

STRICT_WITHOUT: Mapping[str, frozenset[str]] = {
    "array": frozenset({"ArrayType"}),
    "collections": frozenset({"UserString"}),
    "contextlib": frozenset({"chdir"}),
    "enum": frozenset("global_enum global_enum_repr global_flag_repr global_str property".split()),
    "hashlib": frozenset({"file_digest"}),
    "time": frozenset({"clock_settime", "clock_settime_ns", "pthread_getcpuclockid", "tzset"}),
    "timeit": frozenset({"main", "reindent"}),
    "typing": frozenset(
        "ForwardRef evaluate_forward_ref io re no_type_check no_type_check_decorator".split()
    ),
}
"""Public names that strict mode leaves out nevertheless: each reads, writes or runs what it is told by name."""

STANDARD_LIBRARY: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset()) or frozenset(
    (
        *sys.builtin_module_names,
        *(name.partition(".")[0] for name in os.listdir(os.path.dirname(os.__file__))),
    )
)
OUR_PACKAGE = __name__.rpartition(".")[0]


_OPENED: set[Door] = set()


def open_doors(*, network: bool, processes: bool) -> None:
    """Let in what the limits of this process's sandbox open. The strict list stays as it is."""
    _OPENED.update([_NETWORK] * network + [_PROCESSES] * processes)


class Rules:
    """The rules of one mode."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict

    def module_door(self, name: str) -> Door | None:
        """Return why a module may not be imported, or None."""
        if name == OUR_PACKAGE or name.startswith(OUR_PACKAGE + "."):
            return _OURS
        if self._strict:
            return None if name in STRICT_MODULES else REFUSED_MODULES.get(name, _NOT_STRICT)
        if _is_internal(name):
            return _INTERNAL
        door = next((REFUSED_MODULES[part] for part in _prefixes(name) if part in REFUSED_MODULES), None)
        return None if door in _OPENED else door

    def name_door(self, module: str, name: str) -> Door | None:
        """Return why a name of an importable module is not handed out, or None."""
        if self._strict:
            listed = STRICT_MODULES.get(module, frozenset())
            is_out = name in STRICT_WITHOUT.get(module, ()) or not (listed == ALL or name in listed)
            return _NOT_HANDED_OUT if is_out else None
        if module in ONLY and name not in ONLY[module] and not name.startswith("__"):
            return _ONLY_REASONS.get(module, _NOT_HANDED_OUT)
        door = WITHOUT.get(module, {}).get(name)
        return None if door in _OPENED else door

    def has_reasons(self, module: str) -> bool:
        """Return whether names are left out of a module for reasons worth telling."""
        return not self._strict and (module in ONLY or bool(WITHOUT.get(module)))


_ONLY_REASONS: Mapping[str, Door] = {
    "os": Door(
        "it reaches for processes, users or descriptors of the system", "Files and os.path work as usual."
    ),
    "sys": Door(
        "it opens the inside of the interpreter", "Versions, sizes, limits, argv, path and streams work."
    ),
    "gc": Door("it lists the objects of the whole interpreter", "gc.collect() works as usual."),
    "resource": _IDENTITY,
}


def is_standard_library(name: str) -> bool:
    """Return whether a module comes with Python itself."""
    return name.partition(".")[0] in STANDARD_LIBRARY


def _is_internal(name: str) -> bool:
    return name.startswith("_") and is_standard_library(name) and name != "__future__"


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
