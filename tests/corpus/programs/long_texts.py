# %% split a long context into overlapping chunks
context = "\n\n".join(f"Paragraph {i}. " + "word " * 40 for i in range(20))


def chunk(text, size=500, overlap=50):
    start = 0
    while start < len(text):
        end = min(len(text), start + size)
        if end < len(text) and (cut := text.rfind("\n\n", start, end)) > start + overlap:
            end = cut
        yield start, text[start:end]
        if end == len(text):
            break
        start = max(end - overlap, start + 1)


chunks = list(chunk(context))
assert chunks[0][0] == 0 and all(len(part) <= 500 for _, part in chunks)
assert chunks[-1][1] == context[chunks[-1][0] :]
assert all(context[start : start + len(part)] == part for start, part in chunks)

# %% ask a model about each chunk and combine
def llm_query(prompt, **options):
    """Stands for the call to a model."""
    digits = [int(word) for word in prompt.split() if word.isdigit()]
    return f"max={max(digits)}" if digits else "none"


documents = ["prices 10 20 30", "no numbers", "only 99 here"]
PROMPT = """Find the largest number in this text.

Text: {text}
Answer as max=N."""
answers = [llm_query(PROMPT.format(text=document)) for document in documents]
numbers = [int(answer.split("=")[1]) for answer in answers if answer.startswith("max=")]
final = {"largest": max(numbers), "answered": len(numbers), "of": len(documents)}
assert answers == ["max=30", "none", "max=99"]
assert final == {"largest": 99, "answered": 2, "of": 3}

# %% search a corpus by tf idf
import math
import re
from collections import Counter

docs = {
    "a": "the cat sat on the mat",
    "b": "the dog chased the cat around the garden",
    "c": "stock markets fell sharply on monday",
}
tokens = {name: re.findall(r"\w+", text.lower()) for name, text in docs.items()}
frequency = Counter(word for words in tokens.values() for word in set(words))


def vector(words):
    counts = Counter(words)
    return {w: n / len(words) * math.log((1 + len(docs)) / (1 + frequency[w])) for w, n in counts.items()}


def cosine(u, v):
    dot = sum(u[w] * v.get(w, 0) for w in u)
    norm = math.sqrt(sum(x * x for x in u.values())) * math.sqrt(sum(x * x for x in v.values()))
    return dot / norm if norm else 0.0


vectors = {name: vector(words) for name, words in tokens.items()}


def search(query, top=2):
    q = vector(re.findall(r"\w+", query.lower()))
    ranked = sorted(((cosine(q, v), name) for name, v in vectors.items()), reverse=True)
    return [(name, round(score, 3)) for score, name in ranked[:top] if score > 0]


assert search("dog garden")[0][0] == "b"
assert search("markets on monday")[0][0] == "c"
assert search("zebra") == []

# %% extract records from free text with several patterns
import re
from dataclasses import asdict, dataclass
from typing import Iterator, Optional

TEXT = """Invoice 2024-001 from ACME Corp., due 15/02/2024, total EUR 1,250.00.
Reminder: invoice 2024-007 (Beta GmbH) - amount USD 99.95 - was due on 2024-03-01!
Nothing here.
"""


@dataclass
class Invoice:
    number: str
    currency: str
    amount: float
    due: Optional[str] = None


NUMBER = re.compile(r"[Ii]nvoice\s+(\d{4}-\d{3})")
MONEY = re.compile(r"\b(EUR|USD)\s+([\d,]+\.\d{2})")
DATE = re.compile(r"(?:(\d{2})/(\d{2})/(\d{4}))|((?:19|20)\d{2}-\d{2}-\d{2})\b")


def parse(text: str) -> Iterator[Invoice]:
    for line in text.splitlines():
        number, money = NUMBER.search(line), MONEY.search(line)
        if not (number and money):
            continue
        due = None
        for m in DATE.finditer(line):
            due = m.group(4) or f"{m.group(3)}-{m.group(2)}-{m.group(1)}"
        yield Invoice(number[1], money[1], float(money[2].replace(",", "")), due)


found = list(parse(TEXT))
assert [asdict(i)["amount"] for i in found] == [1250.0, 99.95]
assert [i.due for i in found] == ["2024-02-15", "2024-03-01"]

# %% find duplicates by shingles and jaccard
from itertools import combinations


def shingles(text, n=3):
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


texts = {
    1: "the quick brown fox jumps over the lazy dog",
    2: "the quick brown fox jumped over the lazy dog",
    3: "a completely different sentence about other things entirely",
}
sets = {key: shingles(text) for key, text in texts.items()}
pairs = {(a, b): round(jaccard(sets[a], sets[b]), 2) for a, b in combinations(sets, 2)}
assert max(pairs, key=pairs.get) == (1, 2) and pairs[1, 3] == 0

# %% build a table of contents from numbered headings
import re

DOCUMENT = """1 Introduction
text
1.1 Scope
text 3.2 is not a heading
2 Methods
2.1 Data
2.1.1 Sources
"""
outline = []
for line_number, line in enumerate(DOCUMENT.splitlines(), start=1):
    if m := re.fullmatch(r"(\d+(?:\.\d+)*)\s+([A-Z]\w*(?:\s\w+)*)", line):
        outline.append({"level": m[1].count(".") + 1, "number": m[1], "title": m[2], "line": line_number})
toc = "\n".join(f"{'  ' * (e['level'] - 1)}{e['number']} {e['title']}" for e in outline)
assert [e["number"] for e in outline] == ["1", "1.1", "2", "2.1", "2.1.1"]
assert toc.splitlines()[-1] == "    2.1.1 Sources"

# %% validate answers against a schema with repair
import json

SCHEMA = {"name": str, "age": int, "tags": list}
RAW = ['{"name": "Ann", "age": 31, "tags": []}', 'Sure! {"name": "Bob", "age": "25"}', "not json at all"]


def repair(text):
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("no object in the answer")
    data = json.loads(text[start : end + 1])
    for key, kind in SCHEMA.items():
        if key not in data:
            data[key] = kind()
        elif not isinstance(data[key], kind):
            data[key] = kind(data[key])
    return data


results, errors = [], {}
for index, text in enumerate(RAW):
    try:
        results.append(repair(text))
    except (ValueError, TypeError) as error:
        errors[index] = str(error)
assert results[1] == {"name": "Bob", "age": 25, "tags": []}
assert errors == {2: "no object in the answer"}

# %% a conversation log with roles and a token budget
from dataclasses import dataclass, field


@dataclass
class Message:
    role: str
    content: str

    @property
    def tokens(self):
        return max(1, len(self.content) // 4)


@dataclass
class History:
    budget: int
    messages: list = field(default_factory=list)

    def add(self, role, content):
        self.messages.append(Message(role, content))
        while sum(m.tokens for m in self.messages) > self.budget and len(self.messages) > 1:
            victim = next(i for i, m in enumerate(self.messages) if m.role != "system")
            del self.messages[victim]
        return self

    def __iter__(self):
        return iter(self.messages)


history = History(budget=12)
history.add("system", "be brief").add("user", "x" * 20).add("assistant", "y" * 20).add("user", "z" * 16)
assert [m.role for m in history] == ["system", "assistant", "user"] or [m.role for m in history] == ["system", "user"]
assert sum(m.tokens for m in history) <= 12

# %% vote over several answers
from collections import Counter


def majority(answers, *, normalise=str.strip):
    counts = Counter(normalise(a).lower() for a in answers)
    (winner, votes), *rest = counts.most_common()
    tie = bool(rest) and rest[0][1] == votes
    return {"answer": winner, "votes": votes, "share": votes / len(answers), "tie": tie}


assert majority(["Paris", " paris ", "Lyon"]) == {"answer": "paris", "votes": 2, "share": 2 / 3, "tie": False}
assert majority(["a", "b"])["tie"]

# %% map and reduce with a dictionary of results
import functools
import operator

pages = ["alpha beta", "beta gamma beta", "delta"]
mapped = [{word: page.split().count(word) for word in set(page.split())} for page in pages]


def merge(left, right):
    return {key: left.get(key, 0) + right.get(key, 0) for key in left.keys() | right.keys()}


reduced = functools.reduce(merge, mapped, {})
assert reduced == {"alpha": 1, "beta": 3, "gamma": 1, "delta": 1}
assert functools.reduce(operator.or_, (set(m) for m in mapped)) == set(reduced)
