# %% parse an access log and rank the slowest paths
import re
from collections import defaultdict

LOG = """\
10.0.0.1 - - [01/Mar/2024:10:00:01 +0000] "GET /index.html HTTP/1.1" 200 1043 0.012
10.0.0.2 - - [01/Mar/2024:10:00:02 +0000] "POST /api/items HTTP/1.1" 201 87 0.250
10.0.0.1 - - [01/Mar/2024:10:00:03 +0000] "GET /api/items?page=2 HTTP/1.1" 200 5400 0.180
10.0.0.3 - - [01/Mar/2024:10:00:09 +0000] "GET /missing HTTP/1.1" 404 12 0.003
garbage line that does not parse
"""
PATTERN = re.compile(
    r'^(?P<ip>\S+) \S+ \S+ \[(?P<when>[^\]]+)\] "(?P<method>\w+) (?P<path>\S+) [^"]*" '
    r"(?P<status>\d{3}) (?P<size>\d+) (?P<seconds>[\d.]+)$"
)
times = defaultdict(list)
skipped = 0
for line in LOG.splitlines():
    match = PATTERN.match(line)
    if match is None:
        skipped += 1
        continue
    path = match["path"].split("?", 1)[0]
    times[path].append(float(match["seconds"]))
slowest = sorted(times.items(), key=lambda item: -max(item[1]))
assert skipped == 1
assert [path for path, _ in slowest] == ["/api/items", "/index.html", "/missing"]
assert times["/api/items"] == [0.25, 0.18]

# %% tokenise arithmetic and evaluate it by precedence climbing
import re
from typing import NamedTuple


class Token(NamedTuple):
    kind: str
    text: str


def tokenise(source):
    spec = [("NUMBER", r"\d+(\.\d+)?"), ("OP", r"[-+*/^()]"), ("SKIP", r"\s+"), ("BAD", r".")]
    pattern = "|".join(f"(?P<{name}>{regex})" for name, regex in spec)
    for m in re.finditer(pattern, source):
        if m.lastgroup == "BAD":
            raise SyntaxError(f"unexpected {m.group()!r} at {m.start()}")
        if m.lastgroup != "SKIP":
            yield Token(m.lastgroup, m.group())
    yield Token("END", "")


class Parser:
    LEVELS = {"+": (1, "left"), "-": (1, "left"), "*": (2, "left"), "/": (2, "left"), "^": (3, "right")}

    def __init__(self, source):
        self._tokens = list(tokenise(source))
        self._at = 0

    def _next(self):
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _atom(self):
        token = self._next()
        if token.text == "(":
            value = self.expression(1)
            assert self._next().text == ")"
            return value
        if token.text == "-":
            return -self._atom()
        return float(token.text)

    def expression(self, minimum):
        left = self._atom()
        while (op := self._tokens[self._at].text) in self.LEVELS and self.LEVELS[op][0] >= minimum:
            level, side = self.LEVELS[self._next().text]
            right = self.expression(level + (side == "left"))
            left = {"+": left + right, "-": left - right, "*": left * right, "^": left**right}.get(
                op, left / right if op == "/" else 0
            )
        return left


assert Parser("1 + 2 * 3").expression(1) == 7
assert Parser("2 ^ 3 ^ 2").expression(1) == 512
assert Parser("(1 + 2) * -3").expression(1) == -9
try:
    Parser("1 $ 2")
except SyntaxError as error:
    assert "unexpected '$' at 2" in str(error)
else:
    raise AssertionError("no error")

# %% render a table with aligned columns
rows = [("name", "qty", "price"), ("apples", 3, 1.5), ("kiwis", 12, 0.25), ("watermelon", 1, 4)]
widths = [max(len(str(row[i])) for row in rows) for i in range(3)]
lines = []
for index, (name, qty, price) in enumerate(rows):
    lines.append("{:<{w0}}  {:>{w1}}  {:>{w2}}".format(name, qty, price, w0=widths[0], w1=widths[1], w2=widths[2]))
    if index == 0:
        lines.append("-" * len(lines[0]))
text = "\n".join(lines)
print(text)
assert text.splitlines()[2] == "apples        3    1.5"
assert all(len(line) == len(lines[0]) for line in lines)

# %% count words in a text ignoring stop words
import string
from collections import Counter

TEXT = """It was the best of times, it was the worst of times, it was the age of wisdom..."""
STOP = frozenset("it was the of".split())
words = TEXT.lower().translate(str.maketrans("", "", string.punctuation)).split()
counts = Counter(word for word in words if word not in STOP)
assert counts.most_common(1) == [("times", 2)]
assert counts.total() == 6
assert sorted(counts) == ["age", "best", "times", "wisdom", "worst"]

# %% read an INI-like file by hand with sections and comments
SOURCE = """
; global settings
debug = yes
[server]
host = example.org   # a comment
port = 8080

[paths]
root = /srv/data
"""
config = {"": {}}
section = ""
for number, raw in enumerate(SOURCE.splitlines(), 1):
    line = raw.split("#", 1)[0].strip()
    if not line or line.startswith(";"):
        continue
    if line.startswith("[") and line.endswith("]"):
        section = line[1:-1]
        config.setdefault(section, {})
        continue
    key, sep, value = (part.strip() for part in line.partition("="))
    if not sep:
        raise ValueError(f"line {number}: no '='")
    config[section][key] = value
assert config == {
    "": {"debug": "yes"},
    "server": {"host": "example.org", "port": "8080"},
    "paths": {"root": "/srv/data"},
}

# %% convert snake case camel case and kebab case
import re


def words_of(name):
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-\s]+", " ", name)
    return [w.lower() for w in spaced.split()]


def camel(name, *, upper=False):
    first, *rest = words_of(name)
    head = first.title() if upper else first
    return head + "".join(word.title() for word in rest)


def snake(name, sep="_"):
    return sep.join(words_of(name))


assert camel("http_response_code") == "httpResponseCode"
assert camel("http-response-code", upper=True) == "HttpResponseCode"
assert snake("parseHTTPBody") == "parse_httpbody"
assert snake("someValueHere", "-") == "some-value-here"

# %% extract links and headings from markdown
import re

MARKDOWN = """# Title

See [the docs](https://docs.example.org "Docs") and [home](/).

## Section *one*

- item [a](a.md)
"""
headings = [(len(m[1]), m[2].strip()) for m in re.finditer(r"^(#{1,6})\s+(.*)$", MARKDOWN, re.M)]
links = {m["text"]: m["url"] for m in re.finditer(r'\[(?P<text>[^\]]+)\]\((?P<url>[^\s)]+)(?:\s+"[^"]*")?\)', MARKDOWN)}
assert headings == [(1, "Title"), (2, "Section *one*")]
assert links == {"the docs": "https://docs.example.org", "home": "/", "a": "a.md"}

# %% wrap indent and dedent paragraphs
import textwrap

paragraph = """
    A long paragraph that somebody indented in a triple quoted string, and
    that should come out as lines of forty characters at most.
"""
clean = textwrap.dedent(paragraph).strip()
filled = textwrap.fill(clean, width=40, subsequent_indent="  ")
assert all(len(line) <= 40 for line in filled.splitlines())
assert filled.splitlines()[1].startswith("  ")
assert textwrap.shorten(clean, 30, placeholder="...") == "A long paragraph that..."
assert textwrap.indent("a\n\nb", "> ") == "> a\n\n> b"

# %% template substitution with defaults
import string
from collections import ChainMap

defaults = {"greeting": "Hello", "punctuation": "!"}
template = string.Template("$greeting, ${name}$punctuation You owe $$5.")
assert template.substitute(ChainMap({"name": "Ada"}, defaults)) == "Hello, Ada! You owe $5."
assert template.safe_substitute(name="Bob") == "$greeting, Bob$punctuation You owe $5."
try:
    template.substitute(name="x")
except KeyError as error:
    assert error.args == ("greeting",)

# %% edit distance and closest match
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache


def distance(a, b):
    @lru_cache(maxsize=None)
    def go(i, j):
        if i == 0 or j == 0:
            return i or j
        cost = a[i - 1] != b[j - 1]
        return min(go(i - 1, j) + 1, go(i, j - 1) + 1, go(i - 1, j - 1) + cost)

    return go(len(a), len(b))


assert distance("kitten", "sitting") == 3
assert get_close_matches("appel", ["ape", "apple", "peach"], n=1) == ["apple"]
assert round(SequenceMatcher(None, "abcd", "bcde").ratio(), 2) == 0.75

# %% unified diff between two versions
import difflib

old = "one\ntwo\nthree\n".splitlines(keepends=True)
new = "one\n2\nthree\nfour\n".splitlines(keepends=True)
diff = list(difflib.unified_diff(old, new, "old.txt", "new.txt"))
assert diff[0] == "--- old.txt\n"
assert [line for line in diff[2:] if line[0] in "+-"] == ["-two\n", "+2\n", "+four\n"]
assert "".join(difflib.restore(difflib.ndiff(old, new), 2)) == "".join(new)

# %% normalise unicode and fold case for comparison
import unicodedata


def key(text):
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(ch for ch in folded if not unicodedata.combining(ch))


assert key("Café") == key("cafe\u0301") == "cafe"
assert key("Straße") == "strasse"
assert unicodedata.name("€") == "EURO SIGN"
assert sorted(["zebra", "Äpfel", "apfel"], key=key) == ["Äpfel", "apfel", "zebra"]

# %% split sentences and build a keyword in context index
import re

TEXT = "The cat sat. A dog barked! Did the cat run? Yes, the cat ran."
sentences = re.split(r"(?<=[.!?])\s+", TEXT)
index = {}
for number, sentence in enumerate(sentences):
    for word in re.findall(r"\w+", sentence.lower()):
        index.setdefault(word, []).append(number)
context = [
    f"{left[-10:]:>10}[{hit}]{right[:8]}"
    for left, hit, right in (
        (TEXT[: m.start()], m.group(), TEXT[m.end() :]) for m in re.finditer(r"\bcat\b", TEXT)
    )
]
assert len(sentences) == 4
assert index["cat"] == [0, 2, 3]
assert context[0] == "      The [cat] sat. A "

# %% caesar and vigenere ciphers
from itertools import cycle
from string import ascii_lowercase as letters


def shift(char, by):
    return letters[(letters.index(char) + by) % 26] if char in letters else char


def vigenere(text, key, sign=1):
    shifts = cycle(sign * letters.index(k) for k in key)
    return "".join(shift(c, next(shifts)) if c in letters else c for c in text)


assert "".join(shift(c, 3) for c in "xyz abc") == "abc def"
secret = vigenere("attack at dawn", "lemon")
assert secret == "lxfopv ef rnhr"
assert vigenere(secret, "lemon", -1) == "attack at dawn"
