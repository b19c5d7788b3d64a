# %% a lisp interpreter
import math
import operator as op


def parse(source):
    tokens = source.replace("(", " ( ").replace(")", " ) ").split()

    def read():
        token = tokens.pop(0)
        if token == "(":
            form = []
            while tokens[0] != ")":
                form.append(read())
            tokens.pop(0)
            return form
        try:
            return int(token)
        except ValueError:
            return token

    return read()


class Env(dict):
    def __init__(self, names=(), values=(), outer=None):
        super().__init__(zip(names, values))
        self.outer = outer

    def find(self, name):
        return self if name in self else self.outer.find(name)


ROOT = Env()
ROOT.update({"+": op.add, "-": op.sub, "*": op.mul, "<": op.lt, "=": op.eq, "sqrt": math.sqrt, "list": lambda *a: [*a]})


def run(x, env=ROOT):
    match x:
        case str(name):
            return env.find(name)[name]
        case int(value):
            return value
        case ["if", test, then, other]:
            return run(then if run(test, env) else other, env)
        case ["define", name, value]:
            env[name] = run(value, env)
        case ["lambda", names, body]:
            return lambda *args: run(body, Env(names, args, env))
        case [func, *args]:
            return run(func, env)(*(run(arg, env) for arg in args))


run(parse("(define fact (lambda (n) (if (< n 2) 1 (* n (fact (- n 1))))))"))
assert run(parse("(fact 10)")) == 3628800
assert run(parse("((lambda (a b) (list a b)) 1 2)")) == [1, 2]

# %% a stack machine with labels
from enum import Enum, auto


class Code(Enum):
    PUSH = auto()
    ADD = auto()
    DUP = auto()
    JNZ = auto()
    PRINT = auto()


def assemble(text):
    program, labels = [], {}
    for line in text.strip().splitlines():
        line = line.strip()
        if line.endswith(":"):
            labels[line[:-1]] = len(program)
        else:
            name, *args = line.split()
            program.append((Code[name], *args))
    return [(c, labels.get(a[0], a[0]) if a else None) for c, *a in program]


def execute(program):
    stack, out, at = [], [], 0
    while at < len(program):
        code, arg = program[at]
        at += 1
        if code is Code.PUSH:
            stack.append(int(arg))
        elif code is Code.ADD:
            stack.append(stack.pop() + stack.pop())
        elif code is Code.DUP:
            stack.append(stack[-1])
        elif code is Code.PRINT:
            out.append(stack[-1])
        elif code is Code.JNZ and stack[-1]:
            at = arg
    return out


source = """
    PUSH 3
loop:
    PRINT
    PUSH -1
    ADD
    JNZ loop
"""
assert execute(assemble(source)) == [3, 2, 1]

# %% brainfuck
def bf(code, data=""):
    tape, pointer, out, source, at = [0] * 100, 0, [], iter(data), 0
    jumps, opened = {}, []
    for i, char in enumerate(code):
        if char == "[":
            opened.append(i)
        elif char == "]":
            jumps[i] = opened.pop()
            jumps[jumps[i]] = i
    while at < len(code):
        match code[at]:
            case ">" | "<" as arrow:
                pointer += 1 if arrow == ">" else -1
            case "+":
                tape[pointer] = (tape[pointer] + 1) % 256
            case "-":
                tape[pointer] = (tape[pointer] - 1) % 256
            case ".":
                out.append(chr(tape[pointer]))
            case ",":
                tape[pointer] = ord(next(source, "\0"))
            case "[" if not tape[pointer]:
                at = jumps[at]
            case "]" if tape[pointer]:
                at = jumps[at]
        at += 1
    return "".join(out)


assert bf("++++++++[>++++++++<-]>+.+.+.") == "ABC"
assert bf(",[.,]", "echo") == "echo"

# %% regular expression matcher with closures
def char(c):
    return lambda text, i: {i + 1} if i < len(text) and (c == "." or text[i] == c) else set()


def seq(*parts):
    def match(text, i):
        at = {i}
        for part in parts:
            at = {j for k in at for j in part(text, k)}
        return at

    return match


def star(part):
    def match(text, i):
        reached, frontier = {i}, {i}
        while frontier:
            frontier = {j for k in frontier for j in part(text, k)} - reached
            reached |= frontier
        return reached

    return match


def alt(*parts):
    return lambda text, i: set().union(*(p(text, i) for p in parts))


pattern = seq(char("a"), star(alt(char("b"), char("c"))), char("d"))
full = lambda text: len(text) in pattern(text, 0)
assert full("ad") and full("abcbcd") and not full("abx") and not full("abcda")

# %% game of tic tac toe by minimax
from functools import cache

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def winner(board):
    return next((board[a] for a, b, c in LINES if board[a] != "." and board[a] == board[b] == board[c]), None)


@cache
def score(board, player):
    if won := winner(board):
        return 1 if won == "X" else -1
    moves = [i for i, c in enumerate(board) if c == "."]
    if not moves:
        return 0
    results = [score(board[:i] + player + board[i + 1 :], "O" if player == "X" else "X") for i in moves]
    return max(results) if player == "X" else min(results)


assert score("." * 9, "X") == 0
assert score("XX.OO....", "X") == 1 and score("XX.OO....", "O") == -1

# %% cellular automaton and text rendering
def automaton(rule, width=31, steps=8):
    row = [0] * width
    row[width // 2] = 1
    for _ in range(steps):
        yield "".join(" #"[c] for c in row)
        row = [
            rule >> (row[i - 1] << 2 | row[i] << 1 | row[(i + 1) % width]) & 1 for i in range(width)
        ]


lines = list(automaton(90))
assert lines[1].strip() == "# #" and lines[3].strip() == "# # # #"
assert lines[2].count("#") == 2

# %% bank simulation with events in a heap
import heapq
import random


class Simulation:
    def __init__(self, seed):
        self._rng = random.Random(seed)
        self._events = []
        self._sequence = 0
        self.now = 0.0
        self.served = 0
        self.waiting = 0
        self.busy = False

    def at(self, delay, action):
        self._sequence += 1
        heapq.heappush(self._events, (self.now + delay, self._sequence, action))

    def arrive(self):
        self.waiting += 1
        self.at(self._rng.expovariate(1.0), self.arrive)
        if not self.busy:
            self.start()

    def start(self):
        self.waiting -= 1
        self.busy = True
        self.at(self._rng.expovariate(1.5), self.finish)

    def finish(self):
        self.served += 1
        self.busy = False
        if self.waiting:
            self.start()

    def run(self, until):
        self.at(0, self.arrive)
        while self._events and self._events[0][0] < until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        return self.served


assert Simulation(3).run(50) == Simulation(3).run(50) > 20

# %% a tiny template engine
import re


class Template:
    _pattern = re.compile(r"\{\{\s*(.*?)\s*\}\}|\{%\s*(.*?)\s*%\}")

    def __init__(self, source):
        self._nodes = self._parse(iter(self._split(source)), None)

    def _split(self, source):
        at = 0
        for m in self._pattern.finditer(source):
            yield "text", source[at : m.start()]
            yield ("value", m[1]) if m[1] is not None else ("tag", m[2])
            at = m.end()
        yield "text", source[at:]

    def _parse(self, tokens, end):
        nodes = []
        for kind, text in tokens:
            if kind == "tag":
                if text == end:
                    return nodes
                word, rest = text.split(None, 1)
                nodes.append((word, rest, self._parse(tokens, f"end{word}")))
            else:
                nodes.append((kind, text, None))
        return nodes

    def render(self, **names):
        return "".join(self._render(self._nodes, names))

    def _render(self, nodes, names):
        for kind, text, inner in nodes:
            if kind == "text":
                yield text
            elif kind == "value":
                yield str(self._lookup(text, names))
            elif kind == "for":
                name, _, source = text.partition(" in ")
                for item in self._lookup(source, names):
                    yield from self._render(inner, {**names, name: item})
            elif kind == "if" and self._lookup(text, names):
                yield from self._render(inner, names)

    def _lookup(self, path, names):
        name, *rest = path.split(".")
        value = names[name]
        for part in rest:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value


t = Template("Hi {{ user.name }}!{% for x in items %} [{{ x }}]{% endfor %}{% if show %} bye{% endif %}")
assert t.render(user={"name": "Ann"}, items=[1, 2], show=True) == "Hi Ann! [1] [2] bye"
assert t.render(user={"name": "Bob"}, items=[], show=False) == "Hi Bob!"

# %% json parser by recursive descent
def loads(text):
    at = 0

    def error(what):
        raise ValueError(f"{what} at {at}")

    def skip():
        nonlocal at
        while at < len(text) and text[at] in " \n\t\r":
            at += 1

    def expect(token):
        nonlocal at
        if not text.startswith(token, at):
            error(f"expected {token!r}")
        at += len(token)

    def value():
        nonlocal at
        skip()
        for word, result in (("true", True), ("false", False), ("null", None)):
            if text.startswith(word, at):
                at += len(word)
                return result
        if text[at] == "{":
            return dict(items("{", "}", pair))
        if text[at] == "[":
            return items("[", "]", value)
        if text[at] == '"':
            return string()
        start = at
        while at < len(text) and text[at] in "+-0123456789.eE":
            at += 1
        return (float if any(c in text[start:at] for c in ".eE") else int)(text[start:at] or error("no value"))

    def string():
        nonlocal at
        expect('"')
        end = text.index('"', at)
        result, at = text[at:end], end + 1
        return result

    def pair():
        skip()
        key = string()
        skip()
        expect(":")
        return key, value()

    def items(opening, closing, one):
        nonlocal at
        expect(opening)
        found = []
        skip()
        while text[at] != closing:
            found.append(one())
            skip()
            if text[at] == ",":
                at += 1
                skip()
        at += 1
        return found

    result = value()
    skip()
    if at != len(text):
        error("trailing text")
    return result


assert loads('{"a": [1, 2.5, {"b": null}], "c": "x", "d": []}') == {"a": [1, 2.5, {"b": None}], "c": "x", "d": []}
try:
    loads("[1] x")
except ValueError as problem:
    assert str(problem) == "trailing text at 4"
