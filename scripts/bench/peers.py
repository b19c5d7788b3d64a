"""What sessions are measured beside: a bare Python, a plain subprocess that runs cells, and a Jupyter kernel."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

_REPL = """
import contextlib, io, json, sys
answers, names = sys.stdout, {"__name__": "__main__"}
def value_of(code):
    try:
        shown = compile(code, "<cell>", "eval")
    except SyntaxError:
        exec(compile(code, "<cell>", "exec"), names)
    else:
        return eval(shown, names)
def restricted(code):
    import operator, time, re
    from RestrictedPython import compile_restricted, safe_builtins
    from RestrictedPython.Eval import default_guarded_getitem, default_guarded_getiter
    from RestrictedPython.Guards import guarded_iter_unpack_sequence, guarded_unpack_sequence, safer_getattr
    from RestrictedPython.PrintCollector import PrintCollector
    in_place = {"+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "//=": operator.ifloordiv}
    extra = dict(__import__=__import__, sum=sum, min=min, max=max, map=map, list=list, dict=dict, enumerate=enumerate)
    hooks = dict(_getattr_=safer_getattr, _getitem_=default_guarded_getitem, _getiter_=default_guarded_getiter)
    hooks.update(_unpack_sequence_=guarded_unpack_sequence, _iter_unpack_sequence_=guarded_iter_unpack_sequence)
    hooks.update(_print_=PrintCollector, _write_=lambda x: x, _inplacevar_=lambda name, a, b: in_place[name](a, b))
    hooks.update(_apply_=lambda f, *a, **k: f(*a, **k))
    scope = {"__name__": "cell", "__metaclass__": type, "__builtins__": {**safe_builtins, **extra}, **hooks}
    exec(compile_restricted(code + "told = printed", "<cell>", "exec"), scope)
    print(scope["told"])
for line in sys.stdin:
    asked, printed, value = json.loads(line), io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            value = (restricted if asked.get("restricted") else value_of)(asked["code"])
        except BaseException as problem:
            value = problem
    told = {"printed": printed.getvalue(), "value": None if value is None else repr(value)}
    print(json.dumps(told), file=answers, flush=True)
"""


def bare_python() -> None:
    """Start a Python that does nothing, and wait for its end."""
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)


class PlainRepl:
    """A subprocess that runs cells and answers in lines of JSON, as one writes it in five minutes. No isolation."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-c", _REPL]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid

    def ask(self, code: str, *, restricted: bool = False) -> dict[str, Any]:
        """Run one cell and return what came of it."""
        self.tell(code, restricted=restricted)
        return self.hear()

    def tell(self, code: str, *, restricted: bool = False) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": code, "restricted": restricted}).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def plain_repl() -> Generator[PlainRepl, None, None]:
    """Keep a plain subprocess for the length of a block."""
    repl = PlainRepl()
    try:
        yield repl
    finally:
        repl.close()


class Kernel:
    """An IPython kernel and its blocking client. Its methods are for a thread without an event loop."""

    def __init__(self) -> None:
        jupyter = importlib.import_module("jupyter_client")
        self._manager = jupyter.KernelManager()
        self._manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self._manager.provisioner.pid)

    def ask(self, code: str) -> str:
        """Run one cell and return the value it showed, or what it printed."""
        number = self._client.execute(code)
        shown = ""
        while True:
            message = self._client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != number:
                continue
            content = message["content"]
            if content.get("execution_state") == "idle":
                break
            shown += content.get("text", "") or content.get("data", {}).get("text/plain", "")
        self._client.get_shell_msg(timeout=60)
        return shown

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@contextmanager
def kernel() -> Generator[Kernel, None, None]:
    """Keep a Jupyter kernel for the length of a block. It is started in a thread without an event loop."""
    with ThreadPoolExecutor(1) as thread:
        opened = thread.submit(Kernel).result()
        try:
            yield opened
        finally:
            thread.submit(opened.close).result()


def seconds_to_first_answer_of_kernel() -> float:
    """Start an IPython kernel, have it answer, end it; return how long the answer took to come."""
    began = time.perf_counter()
    kernel = Kernel()
    try:
        assert kernel.ask("1+1") == "2"
        return time.perf_counter() - began
    finally:
        kernel.close()


def settle_jupyter(folder: str) -> None:
    """Have Jupyter keep what it writes in `folder`, whoever runs this."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        os.environ[name] = folder
