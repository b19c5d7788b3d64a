"""The tools as a model meets them."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from rlm_mcp import texts
from rlm_mcp.app import App, Surroundings, open_app
from rlm_mcp.arguments import SetContext, parse
from rlm_mcp.errors import ArgumentsWrong
from rlm_mcp.server import INSTRUCTIONS, make_server
from rlm_mcp.sources import Sources
from rlm_mcp.tenants import OWNER

from .conftest import Caller, text_of

MOST_TOKENS = 1250


# ---- definitions


async def test_a_client_is_told_of_the_tools(call: Caller) -> None:
    tools = (await call.client.list_tools()).tools

    assert [tool.name for tool in tools] == [
        "execute_python",
        "get_repl_context",
        "set_repl_context",
        "clear_repl_context",
        "rlm_complete",
        "rlm_status",
        "answer_calls",
    ]


async def test_the_definitions_are_short(call: Caller) -> None:
    tools = (await call.client.list_tools()).tools
    read = [tool.model_dump(by_alias=True, include={"name", "description", "input_schema"}) for tool in tools]

    assert len(json.dumps(read)) / 4 < MOST_TOKENS
    assert len(INSTRUCTIONS) <= 2000


async def test_every_argument_is_described_and_every_number_has_bounds(call: Caller) -> None:
    for tool in (await call.client.list_tools()).tools:
        assert tool.input_schema["additionalProperties"] is False
        for name, facts in tool.input_schema["properties"].items():
            assert facts["description"], name
            if facts["type"] in ("number", "integer"):
                assert "maximum" in facts and ("minimum" in facts or "exclusiveMinimum" in facts), name


async def test_the_hints_are_what_the_tools_do(call: Caller) -> None:
    hints = {tool.name: tool.annotations for tool in (await call.client.list_tools()).tools}

    said = {
        name: (hint.read_only_hint, hint.destructive_hint, hint.idempotent_hint, hint.open_world_hint)
        for name, hint in hints.items()
        if hint is not None
    }
    assert said == {
        "execute_python": (False, True, False, False),
        "get_repl_context": (True, False, True, False),
        "set_repl_context": (False, True, False, False),
        "clear_repl_context": (False, True, True, False),
        "rlm_complete": (False, False, False, True),
        "rlm_status": (False, False, True, False),
        "answer_calls": (False, False, True, False),
    }


async def test_execute_python_is_told_of_without_being_looked_for(call: Caller) -> None:
    tools = {tool.name: tool for tool in (await call.client.list_tools()).tools}

    assert tools["execute_python"].meta == {"anthropic/alwaysLoad": True}


# ---- execute_python


async def test_what_was_printed_comes_first_and_then_the_value(call: Caller) -> None:
    assert await call.run("x = 20\nprint('seen')\nx + 1") == "seen\n21\n[set: x]"


async def test_a_cell_that_says_nothing_is_told_as_such(call: Caller) -> None:
    assert await call.run("pass") == "[no output]"


async def test_a_variable_is_there_in_the_next_call(call: Caller) -> None:
    await call.run("kept = [1, 2, 3]")

    assert await call.run("kept") == "[1, 2, 3]"


async def test_an_error_shows_the_frames_of_the_cell_and_none_of_ours(call: Caller) -> None:
    result = await call("execute_python", code="def f():\n    return {}['gone']\nprint('before')\nf()")

    assert result.is_error
    said = text_of(result)
    assert said.startswith("before\nTraceback") and "KeyError: 'gone'" in said
    assert "line 4, in <module>" in said and "rlm_" not in said and "site-packages" not in said


async def test_an_error_of_syntax_shows_the_place_and_no_frames(call: Caller) -> None:
    said = await call.said("execute_python", code="x = (1,\ny = 2")

    assert "SyntaxError" in said and "<cell 1>" in said
    assert "Traceback" not in said and "ast.py" not in said


async def test_a_cell_that_takes_too_long_is_stopped_and_keeps_its_variables(call: Caller) -> None:
    code = "n = 0\nprint('begun')\nwhile True:\n    n += 1"
    result = await call("execute_python", code=code, timeout_s=0.5)

    said = text_of(result)
    assert result.is_error and said.startswith("begun")
    assert "longer than timeout_s = 0.5" in said and "kept" in said
    assert "True" in await call.run("n > 0")


async def test_a_limit_says_which_setting_raises_it(call: Caller) -> None:
    said = await call.said("execute_python", code="x = bytearray(10**11)")

    assert "MemoryError" in said and "memory_bytes" in said and "RLM_SANDBOX_MEMORY_BYTES" in said


async def test_what_is_refused_is_told_without_names_of_ours(call: Caller) -> None:
    said = await call.said("execute_python", code="import urllib.request")

    assert "\nModuleRefused: importing urllib.request is refused" in said


async def test_a_figure_comes_as_an_image(call: Caller) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 2])\nplt.show()"
    result = await call("execute_python", code=code)

    images = [block for block in result.content if block.type == "image"]
    assert [image.mime_type for image in images] == ["image/png"]


async def test_figures_beyond_the_most_are_linked(call: Caller) -> None:
    code = "import matplotlib.pyplot as plt\nfor n in range(7):\n    plt.figure(); plt.plot([n]); plt.show()"
    result = await call("execute_python", code=code)

    links = [block for block in result.content if block.type == "resource_link"]
    assert len([block for block in result.content if block.type == "image"]) == texts.MOST_IMAGES
    assert len(links) == 2 and all(str(link.uri).startswith("rlm://outputs/") for link in links)


async def test_a_long_output_keeps_both_ends_and_says_where_the_rest_is(call: Caller) -> None:
    said = await call.run("for n in range(100_000): print('line', n)")

    assert said.startswith("line 0\n") and "line 99999" in said and "rlm://outputs/" in said
    assert len(said) < 25_000


async def test_no_answer_is_longer_than_a_client_takes(call: Caller) -> None:
    code = "print('o' * 10**6)\ndef f(n): return f(n - 1) if n else 1 / 0\nclass E(Exception): pass\nraise E('e' * 10**6)"

    assert len(await call.said("execute_python", code=code)) <= texts.MOST_CHARACTERS + 100


async def test_colours_for_a_terminal_are_left_out(call: Caller) -> None:
    assert await call.run(r"print('\x1b[31mred\x1b[0m')") == "red"


async def test_text_that_is_no_utf_8_arrives_readable(call: Caller) -> None:
    assert "\\udcff" in await call.run(r"print('\udcff')")


async def test_a_long_cell_tells_the_last_line_that_it_printed(call: Caller) -> None:
    told: list[str | None] = []
    enough = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)
        if message == "step one":
            enough.set()

    async def wait_and_release() -> None:
        await enough.wait()
        await anyio.Path(call.project / "go").touch()

    code = "import time, os\nprint('step one')\nwhile not os.path.exists('go'): time.sleep(0.01)"
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_and_release)
            await call.client.call_tool("execute_python", {"code": code}, progress_callback=hear)

    assert told[-1] == "step one"


async def test_calls_of_one_session_are_answered_in_the_order_in_which_they_came(call: Caller) -> None:
    await call.run("seen = []")
    async with anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(call.run, f"seen.append({n})")
            await anyio.sleep(0.01)

    assert await call.run("seen") == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


async def test_another_project_answers_while_one_is_busy(call: Caller) -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_forever, call)
            assert await call.run("1 + 1", project="another") == "2"
            tasks.cancel_scope.cancel()


async def _run_forever(call: Caller) -> None:
    await call("execute_python", code="while True: pass")


async def test_a_call_that_is_cancelled_interrupts_its_cell_and_keeps_the_session(call: Caller) -> None:
    await call.run("n = 0")
    with anyio.move_on_after(0.5):
        await call("execute_python", code="while True: n += 1")

    with anyio.fail_after(10):
        assert "True" in await call.run("n > 0")


async def test_more_calls_than_may_wait_are_refused(call: Caller) -> None:
    refused: list[str] = []

    async def ask() -> None:
        said = await call.said("execute_python", code="pass")
        if "wait for this session already" in said:
            refused.append(said)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_forever, call)
            await anyio.sleep(0.2)
            for _ in range(110):
                tasks.start_soon(ask)
            while len(refused) < 5:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    assert "Wait for their answers" in refused[0]


@pytest.mark.parametrize("tool", ["set_repl_context", "clear_repl_context"])
async def test_no_tool_can_make_the_line_of_a_session_longer(call: Caller, tool: str) -> None:
    said = ""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            while "100 more wait" not in await call.said("get_repl_context"):
                for _ in range(40):  # of which those are refused that find no room
                    tasks.start_soon(_run_forever, call)
                await anyio.sleep(0.05)
            said = await call.said(tool, **({"values": {"a": 1}} if tool.startswith("set") else {}))
            tasks.cancel_scope.cancel()

    assert "wait for this session already" in said


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "import sys; sys.stdout.close()",
        "import sys; sys.setrecursionlimit(10**6)\ndef f(): f()\nf()",
        "class E(BaseException):\n    def __str__(self): raise self\nraise E",
        "class V:\n    def __repr__(self): raise SystemExit\nV()",
        "print('\\udcff' * 3, '\\0')",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "'\\0'.join('a' * 100_000)",
    ],
)
async def test_nothing_that_a_cell_does_ends_the_server_or_another_session(call: Caller, code: str) -> None:
    await call.run("kept = 1", project="another")
    await call.said("execute_python", code=code)

    assert await call.run("1 + 1") == await call.run(
        "kept + 1", project="another"
    ) or "note:" in await call.run("2")
    assert await call.run("kept", project="another") == "1"


async def test_output_of_sessions_at_work_at_the_same_time_is_not_mixed(call: Caller) -> None:
    said = dict[str, str]()

    async def work(name: str) -> None:
        code = f"import time\nfor _ in range(200): print({name!r}); time.sleep(0.001)"
        said[name] = await call.run(code, project=name)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for name in ("one", "two", "three"):
                tasks.start_soon(work, name)

    assert all(set(text.split("[")[0].split()) == {name} for name, text in said.items())


# ---- arguments


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("execute_python", {"code": "1", "tmeout_s": 3}, "did you mean 'timeout_s'?"),
        ("execute_python", {}, "code: Field required"),
        (
            "execute_python",
            {"code": "1", "timeout_s": 0},
            "timeout_s: Input should be greater than or equal to 0.1",
        ),
        ("execute_python", {"code": "1", "timeout_s": 10_000}, "timeout_s: 10000 is over the most allowed"),
        ("execute_python", {"code": 5}, "code: Input should be a valid string"),
        ("get_repl_context", {"max_chars": 5}, "max_chars"),
        ("set_repl_context", {"values": "text"}, "values"),
        ("set_repl_context", {"value": {"a": 1}}, "did you mean 'values'?"),
    ],
)
async def test_wrong_arguments_say_what_would_be_right(
    call: Caller, tool: str, arguments: dict[str, object], told: str
) -> None:
    result = await call(tool, **arguments)

    assert result.is_error and told in text_of(result)
    assert "Nothing was run or changed." in text_of(result)


async def test_an_unknown_tool_is_an_error_that_names_the_known(call: Caller) -> None:
    with pytest.raises(Exception, match="execute_python"):
        await call("run_python", code="1")


# ---- projects


async def test_projects_do_not_see_one_another(call: Caller) -> None:
    await call.run("secret = 1", project="one")

    assert "NameError" in await call.said("execute_python", code="secret", project="two")


async def test_a_folder_within_the_project_may_be_one_too(call: Caller) -> None:
    (call.project / "part").mkdir()
    (call.project / "part" / "data.txt").write_text("inner")

    assert await call.run("open('data.txt').read()", project="./part") == "'inner'"


@pytest.mark.parametrize("folder", ["/etc", "..", "/"])
async def test_no_folder_outside_the_project_can_be_asked_for(call: Caller, folder: str) -> None:
    result = await call("execute_python", code="1", project=f"{folder}/" if folder == ".." else folder)

    assert result.is_error and "project" in text_of(result)


class TestFolders:
    """What the user allows beside the project."""

    @pytest.fixture
    def allowed(self, tmp_path: Path, flags: dict[str, object]) -> Path:
        folder = tmp_path / "allowed"
        folder.mkdir()
        (folder / "data.txt").write_text("allowed data")
        flags["sandbox.folders"] = str(folder)
        return folder

    async def test_files_can_be_loaded_from_a_folder_that_is_allowed(
        self, allowed: Path, call: Caller
    ) -> None:
        await call.said("set_repl_context", files={"data": str(allowed / "data.txt")})

        assert await call.run("data") == "'allowed data'"

    async def test_code_can_read_it(self, allowed: Path, call: Caller) -> None:
        assert await call.run(f"open({str(allowed / 'data.txt')!r}).read()") == "'allowed data'"

    async def test_it_can_be_a_project(self, allowed: Path, call: Caller) -> None:
        assert await call.run("open('data.txt').read()", project=str(allowed)) == "'allowed data'"


# ---- set_repl_context


async def test_values_become_variables(call: Caller) -> None:
    said = await call.said("set_repl_context", values={"a": [1, None, {"b": True}], "s": "text"})

    assert said == "a: array of 3\ns: text of 4"
    assert await call.run("a, s") == "([1, None, {'b': True}], 'text')"


async def test_a_file_becomes_its_text_and_several_become_parts(call: Caller) -> None:
    for name in ("one.md", "two.md"):
        (call.project / name).write_text(f"# {name}\r\n")
    said = await call.said("set_repl_context", files={"one": "one.md", "all": "*.md", "list": ["two.md"]})

    assert "one: 10 characters from one.md" in said and "all: 20 characters from 2 files" in said
    assert (
        await call.run("one, sorted(all), list")
        == r"('# one.md\r\n', ['one.md', 'two.md'], {'two.md': '# two.md\r\n'})"
    )


async def test_files_are_added_to_what_is_there(call: Caller) -> None:
    (call.project / "a.txt").write_text("a")
    (call.project / "b.txt").write_text("b")
    await call.said("set_repl_context", files={"parts": ["a.txt"]})
    await call.said("set_repl_context", files={"parts": ["b.txt"]}, append=True)

    assert await call.run("parts") == "{'a.txt': 'a', 'b.txt': 'b'}"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../outside.txt", "link.txt", "sub/../../outside.txt", "~/x", "gone.txt", "a\0b", "."],
)
async def test_no_other_file_is_loaded(call: Caller, path: str) -> None:
    (call.project.parent / "outside.txt").write_text("outside")
    (call.project / "sub").mkdir()
    (call.project / "link.txt").symlink_to(call.project.parent / "outside.txt")
    result = await call("set_repl_context", values={"kept": 1}, files={"stolen": path})

    assert result.is_error and "Nothing was changed" in text_of(result)
    assert await call.said("get_repl_context") == "[no variables]"


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "nothing*"])
async def test_a_pattern_stays_within_the_project(call: Caller, pattern: str) -> None:
    (call.project.parent / "outside.txt").write_text("outside")
    result = await call("set_repl_context", files={"stolen": pattern})

    assert result.is_error and "Nothing was changed" in text_of(result)


@pytest.mark.parametrize("pattern", ["link*", "folder/*", "**/*.txt", "folder/../../*"])
async def test_links_do_not_lead_a_pattern_out_of_the_project(call: Caller, pattern: str) -> None:
    (call.project.parent / "elsewhere").mkdir()
    (call.project.parent / "elsewhere" / "outside.txt").write_text("outside")
    (call.project / "link.txt").symlink_to(call.project.parent / "elsewhere" / "outside.txt")
    (call.project / "folder").symlink_to(call.project.parent / "elsewhere")
    result = await call("set_repl_context", files={"stolen": pattern})

    assert result.is_error and "Nothing was changed" in text_of(result)


async def test_a_link_within_the_project_is_followed(call: Caller) -> None:
    (call.project / "data.txt").write_text("inner")
    (call.project / "link.txt").symlink_to("data.txt")
    await call.said("set_repl_context", files={"one": "link.txt", "all": ["link.txt", "data.*"]})

    assert await call.run("one, all") == "('inner', {'data.txt': 'inner'})"


async def test_a_name_with_brackets_is_a_file_where_there_is_one(call: Caller) -> None:
    (call.project / "[slug].tsx").write_text("page")
    (call.project / "s.tsx").write_text("other")
    await call.said("set_repl_context", files={"page": "[slug].tsx", "others": "[stu].tsx"})

    assert await call.run("page, others") == "('page', {'s.tsx': 'other'})"


async def test_paths_and_patterns_may_stand_in_one_list(call: Caller) -> None:
    for name in ("a.py", "b.py", "c.md"):
        (call.project / name).write_text(name)
    await call.said("set_repl_context", files={"all": ["b.py", "*.py", "c.md"]})

    assert await call.run("all") == "{'b.py': 'b.py', 'a.py': 'a.py', 'c.md': 'c.md'}"


async def test_every_byte_of_a_file_is_kept(call: Caller) -> None:
    (call.project / "raw").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\0d\xff\xfe\xed\xa0\x80\x1a\n\n")
    said = await call.said("set_repl_context", files={"raw": "raw"})

    assert said == "raw: 17 characters from raw"
    assert await call.run("raw.encode('utf-8', 'surrogateescape') == open('raw', 'rb').read()") == "True"


async def test_every_character_of_a_value_is_kept(call: Caller) -> None:
    await call.said("set_repl_context", values={"text": "a\r\nb\rc\0\ud800\u2028\ufeff", "n": 10**30})

    assert await call.run("ascii(text), n") == str((ascii("a\r\nb\rc\0\ud800\u2028\ufeff"), 10**30))


async def test_nothing_is_set_if_one_of_the_patterns_means_no_file(call: Caller) -> None:
    (call.project / "a.txt").write_text("a")
    files = {"a": "a.txt", "b": "*.txt", "c": "nothing*"}
    said = await call.said("set_repl_context", values={"v": 1}, files=files)

    assert "Nothing was changed" in said
    assert await call.said("get_repl_context") == "[no variables]"


async def test_what_was_set_before_something_went_wrong_is_told(call: Caller) -> None:
    (call.project / "a.txt").write_text("a")
    await call.run("b = 1")
    result = await call(
        "set_repl_context", values={"v": 1}, files={"a": ["a.txt"], "b": ["a.txt"]}, append=True
    )

    said = text_of(result)
    assert result.is_error and said.endswith("\nv: int\na: 1 characters from a.txt"), said
    assert (await call.said("get_repl_context")).splitlines()[1:] == ["b: int, 28 B: 1", "v: int, 28 B: 1"]


async def test_a_value_is_never_echoed(call: Caller) -> None:
    assert len(await call.said("set_repl_context", values={"big": "x" * 1_000_000})) < 100


# ---- get_repl_context


async def test_variables_are_listed_with_type_size_and_preview(call: Caller) -> None:
    await call.run("text = 'a' * 10**6\nnumbers = list(range(10))")
    said = await call.said("get_repl_context")

    assert "text: str, 1 MB: 'aaa" in said and "numbers: list" in said
    assert len(said) < 1000


async def test_named_values_are_shown_within_bounds(call: Caller) -> None:
    await call.run("text = 'a' * 10**5\nhuge = 'b' * 10**8\nplain = {'k': [1]}\nf = lambda: 1")
    said = await call.said("get_repl_context", names=["text", "huge", "plain", "f", "gone"], max_chars=200)

    assert 'plain = {"k": [1]}' in said and "f = <function" in said
    assert "huge: too large to show" in said and "gone: no such variable" in said
    assert len(said) < 1500


async def test_looking_does_not_wait_for_a_cell(call: Caller) -> None:
    await call.run("x = 5")
    said = named = ""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_forever, call)
            while "busy" not in said:
                said = await call.said("get_repl_context")
            named = await call.said("get_repl_context", names=["x"])
            tasks.cancel_scope.cancel()

    assert "x: int" in said and "while True: pass" in said
    assert named.startswith("x: not shown, because") and "busy" in named


async def test_looking_does_not_wait_for_the_cell_that_wakes_the_session(call: Caller) -> None:
    said = list[str]()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_forever, call)
            while not said or "while True: pass" not in said[-1]:
                said.append(await call.said("get_repl_context"))
            tasks.cancel_scope.cancel()

    assert "busy with step" in said[-1]


# ---- clear_repl_context


async def test_named_variables_are_deleted(call: Caller) -> None:
    await call.run("a = b = 1")

    assert await call.said("clear_repl_context", names=["a", "gone"]) == "Deleted: a.\nNot there: gone."
    assert await call.run("b") == "1"


@pytest.mark.parametrize("tool", ["get_repl_context", "clear_repl_context"])
async def test_a_name_that_is_megabytes_long_is_refused(call: Caller, tool: str) -> None:
    result = await call(tool, names=["x" * 5_000_000])

    assert result.is_error and "names.0" in text_of(result) and "server failed" not in text_of(result)


async def test_clearing_all_gives_a_fresh_interpreter(call: Caller) -> None:
    await call.run("import json\njson.planted = 1\na = 1")
    await call.said("clear_repl_context")

    assert await call.said("get_repl_context") == "[no variables]"
    assert await call.run("import json\nhasattr(json, 'planted')") == "False\n[set: json]"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"files": {str(number): 1 for number in range(300_000)}}, "1000 variables"),
        ({"files": {"a": [1] * 300_000}}, "10000 paths"),
        ({"values": {f"v{number}": 1 for number in range(300_000)}}, "1000"),
        ({str(number): 1 for number in range(300_000)}, "300000 arguments"),
    ],
    ids=["variables of files", "paths", "variables", "arguments"],
)
def test_a_flood_of_wrong_arguments_is_refused_without_looking_at_each(
    given: dict[str, object], told: str
) -> None:
    tracemalloc.start()
    with pytest.raises(ArgumentsWrong, match=told):
        parse(SetContext, given, tool="set_repl_context")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 20_000_000


# ---- settings and secrets


@pytest.mark.parametrize("place", ["state", "config"])
async def test_no_code_runs_where_it_could_read_the_servers_own_places(
    flags: dict[str, object], tmp_path: Path, project: Path, place: str
) -> None:
    flags["sessions.state_dir"] = str((project if place == "state" else tmp_path) / "state")
    config = (project if place == "config" else tmp_path) / "config"
    async with open_app(Sources(flags, {}, config), Surroundings(None, project)) as app:
        async with Client(make_server(app), mode="2026-07-28") as client:
            call = Caller(client, project)
            refused = await call("execute_python", code="1")
            other = await call.run("1", project="notes")
            await anyio.to_thread.run_sync((project / "rlm.toml").write_text, '[sandbox]\nfiles = "none"\n')
            without = await call("execute_python", code="import os\nos.listdir('.')")

    assert refused.is_error and str(project / place) in text_of(refused)
    assert other == "1"
    assert place not in text_of(without)


async def test_many_projects_do_not_use_up_the_files_that_the_server_may_open(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_mcp.opened._most_sessions", lambda: 3)
    for number in range(8):
        await call.run(f"x = {number}", project=f"p{number}")
    opened = [info.project.name for info in app.managers()[OWNER].sessions()]
    again = await call.run("x", project="p0")

    assert opened == ["p7", "p6", "p5"]
    assert again.startswith("0")


async def test_a_wrong_file_of_the_project_is_told_to_the_model(call: Caller) -> None:
    (call.project / "rlm.toml").write_text("[sandbox]\nnetwrok = true\n")
    result = await call("execute_python", code="1")

    assert result.is_error and "rlm.toml:2" in text_of(result) and "network" in text_of(result)


async def test_what_a_project_asks_for_in_vain_is_said_once(call: Caller) -> None:
    (call.project / "rlm.toml").write_text("[sandbox]\nnetwork = true\n")
    first, second = await call.run("1"), await call.run("2")

    assert "not" in first and "network" in first and "[note:" in first
    assert second == "2"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PLANTED_API_KEY", "sk-planted-secret")
    return "sk-planted-secret"


async def test_the_servers_environment_is_not_in_the_session(planted: str, call: Caller) -> None:
    said = await call.run("import os\nstr(dict(os.environ))")

    assert planted in os.environ.values() and planted not in said


async def test_an_error_that_nobody_foresaw_hides_its_text(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("a path of ours")

    monkeypatch.setattr(app, "session", fail)
    result = await call("execute_python", code="1")

    assert result.is_error and "a path of ours" not in text_of(result) and "ValueError" in text_of(result)


async def test_the_same_holds_for_clients_of_before_2026(app: App, project: Path) -> None:
    async with Client(make_server(app), mode="legacy") as client:
        call = Caller(client, project)

        assert await call.run("x = 1\nx") == "1\n[set: x]"
