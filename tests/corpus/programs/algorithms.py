# %% dijkstra on a weighted graph
import heapq
from math import inf

graph = {"a": {"b": 7, "c": 3}, "b": {"d": 2}, "c": {"b": 1, "d": 8}, "d": {}}


def shortest(graph, start):
    distance = {node: inf for node in graph}
    distance[start], previous = 0, {}
    queue = [(0, start)]
    while queue:
        so_far, node = heapq.heappop(queue)
        if so_far > distance[node]:
            continue
        for neighbour, weight in graph[node].items():
            if (candidate := so_far + weight) < distance[neighbour]:
                distance[neighbour], previous[neighbour] = candidate, node
                heapq.heappush(queue, (candidate, neighbour))
    return distance, previous


distance, previous = shortest(graph, "a")
path = ["d"]
while path[-1] in previous:
    path.append(previous[path[-1]])
assert distance == {"a": 0, "b": 4, "c": 3, "d": 6}
assert path[::-1] == ["a", "c", "b", "d"]

# %% breadth first search through a maze
from collections import deque

MAZE = """\
#########
#S..#...#
#.#.#.#.#
#.#...#E#
#########"""
cells = {(r, c): ch for r, line in enumerate(MAZE.splitlines()) for c, ch in enumerate(line)}
start = next(pos for pos, ch in cells.items() if ch == "S")
queue, seen = deque([(start, 0)]), {start}
steps = None
while queue:
    (r, c), n = queue.popleft()
    if cells[r, c] == "E":
        steps = n
        break
    for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        pos = r + dr, c + dc
        if cells.get(pos, "#") != "#" and pos not in seen:
            seen.add(pos)
            queue.append((pos, n + 1))
assert steps == 12

# %% topological order by library and by hand
from graphlib import CycleError, TopologicalSorter

deps = {"app": {"lib", "log"}, "lib": {"core"}, "log": {"core"}, "core": set()}
order = list(TopologicalSorter(deps).static_order())
assert order[0] == "core" and order[-1] == "app"


def by_hand(deps):
    done, order = set(), []

    def visit(node):
        if node not in done:
            done.add(node)
            for dep in sorted(deps[node]):
                visit(dep)
            order.append(node)

    for node in sorted(deps):
        visit(node)
    return order


assert by_hand(deps) == ["core", "lib", "log", "app"]
try:
    list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
except CycleError as error:
    assert error.args[1][0] in "ab"

# %% sorting algorithms compared
import random


def quicksort(items):
    if len(items) < 2:
        return items
    pivot, *rest = items
    return [*quicksort([x for x in rest if x < pivot]), pivot, *quicksort([x for x in rest if x >= pivot])]


def mergesort(items):
    if len(items) < 2:
        return items
    middle = len(items) // 2
    left, right = mergesort(items[:middle]), mergesort(items[middle:])
    merged = []
    while left and right:
        merged.append((left if left[0] <= right[0] else right).pop(0))
    return merged + left + right


def insertion(items):
    items = list(items)
    for i in range(1, len(items)):
        j = i
        while j and items[j - 1] > items[j]:
            items[j - 1], items[j] = items[j], items[j - 1]
            j -= 1
    return items


data = random.Random(1).sample(range(1000), 60)
assert quicksort(data) == mergesort(data) == insertion(data) == sorted(data)

# %% binary search and bisect
from bisect import bisect_left, bisect_right, insort


def search(items, target):
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low if low < len(items) and items[low] == target else -1


items = [1, 3, 5, 5, 5, 9]
assert search(items, 5) == 2 and search(items, 4) == -1
assert bisect_right(items, 5) - bisect_left(items, 5) == 3
insort(items, 4)
assert items == [1, 3, 4, 5, 5, 5, 9]
grades = "FDCBA"
assert [grades[bisect_right([60, 70, 80, 90], s)] for s in (33, 65, 77, 89, 90)] == list("FDCBA")

# %% knapsack and longest common subsequence
def knapsack(items, capacity):
    best = [0] * (capacity + 1)
    for weight, value in items:
        for room in range(capacity, weight - 1, -1):
            best[room] = max(best[room], best[room - weight] + value)
    return best[capacity]


def lcs(a, b):
    table = [[""] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + x if x == y else max(table[i][j + 1], table[i + 1][j], key=len)
    return table[-1][-1]


assert knapsack([(1, 1), (3, 4), (4, 5), (5, 7)], 7) == 9
assert lcs("AGGTAB", "GXTXAYB") == "GTAB"

# %% n queens by backtracking generator
def queens(n, row=0, columns=(), up=(), down=()):
    if row == n:
        yield columns
        return
    for c in range(n):
        if c not in columns and row + c not in up and row - c not in down:
            yield from queens(n, row + 1, (*columns, c), (*up, row + c), (*down, row - c))


solutions = list(queens(6))
assert len(solutions) == 4
board = ["".join("Q" if c == q else "." for c in range(6)) for q in solutions[0]]
assert board[0] == ".Q...."

# %% union find and minimum spanning tree
class UnionFind:
    def __init__(self, items):
        self._parent = {item: item for item in items}
        self._rank = dict.fromkeys(self._parent, 0)

    def find(self, item):
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def union(self, a, b):
        a, b = self.find(a), self.find(b)
        if a == b:
            return False
        if self._rank[a] < self._rank[b]:
            a, b = b, a
        self._parent[b] = a
        self._rank[a] += self._rank[a] == self._rank[b]
        return True


edges = [(4, "a", "b"), (1, "b", "c"), (3, "a", "c"), (7, "c", "d"), (2, "b", "d")]
sets = UnionFind("abcd")
tree = [(w, a, b) for w, a, b in sorted(edges) if sets.union(a, b)]
assert sum(w for w, *_ in tree) == 6 and len(tree) == 3

# %% a trie with prefix search
class Trie:
    def __init__(self):
        self.children = {}
        self.is_word = False

    def insert(self, word):
        node = self
        for char in word:
            node = node.children.setdefault(char, Trie())
        node.is_word = True

    def words(self, prefix=""):
        if self.is_word:
            yield prefix
        for char in sorted(self.children):
            yield from self.children[char].words(prefix + char)

    def starting_with(self, prefix):
        node = self
        for char in prefix:
            if (node := node.children.get(char)) is None:
                return []
        return list(node.words(prefix))


trie = Trie()
for word in "car card care cat dog".split():
    trie.insert(word)
assert trie.starting_with("car") == ["car", "card", "care"]
assert trie.starting_with("x") == []

# %% binary tree insert delete and balance check
class Tree:
    def __init__(self, key, left=None, right=None):
        self.key, self.left, self.right = key, left, right


def insert(node, key):
    if node is None:
        return Tree(key)
    if key < node.key:
        node.left = insert(node.left, key)
    elif key > node.key:
        node.right = insert(node.right, key)
    return node


def delete(node, key):
    if node is None:
        return None
    if key < node.key:
        node.left = delete(node.left, key)
    elif key > node.key:
        node.right = delete(node.right, key)
    elif node.left is None or node.right is None:
        return node.left or node.right
    else:
        smallest = node.right
        while smallest.left:
            smallest = smallest.left
        node.key = smallest.key
        node.right = delete(node.right, smallest.key)
    return node


def keys(node):
    return [] if node is None else [*keys(node.left), node.key, *keys(node.right)]


root = None
for key in (50, 30, 70, 20, 40, 60, 80):
    root = insert(root, key)
root = delete(delete(root, 20), 50)
assert keys(root) == [30, 40, 60, 70, 80] and root.key == 60

# %% matrix determinant inverse and power
from fractions import Fraction


def matmul(a, b):
    return [[sum(x * y for x, y in zip(row, col)) for col in zip(*b)] for row in a]


def determinant(m):
    if len(m) == 1:
        return m[0][0]
    return sum(
        (-1) ** j * value * determinant([row[:j] + row[j + 1 :] for row in m[1:]]) for j, value in enumerate(m[0])
    )


def inverse(m):
    n = len(m)
    rows = [[*map(Fraction, row), *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(m)]
    for i in range(n):
        pivot = next(r for r in range(i, n) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for r in range(n):
            if r != i:
                factor = rows[r][i]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i])]
    return [row[n:] for row in rows]


m = [[2, 1, 0], [1, 3, 2], [0, 1, 4]]
assert determinant(m) == 16
assert matmul(m, inverse(m)) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

# %% sudoku solver with constraint propagation
PUZZLE = (
    "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
)
grid = [int(c) for c in PUZZLE]


def candidates(grid, i):
    r, c = divmod(i, 9)
    used = {grid[r * 9 + k] for k in range(9)} | {grid[k * 9 + c] for k in range(9)}
    used |= {grid[(r // 3 * 3 + k // 3) * 9 + c // 3 * 3 + k % 3] for k in range(9)}
    return set(range(1, 10)) - used


def solve(grid):
    empty = [(len(options), i, options) for i in range(81) if not grid[i] for options in [candidates(grid, i)]]
    if not empty:
        return grid
    _, i, options = min(empty, key=lambda e: e[:2])
    for digit in options:
        grid[i] = digit
        if solve(grid):
            return grid
    grid[i] = 0
    return None


solved = solve(grid)
assert solved[:9] == [5, 3, 4, 6, 7, 8, 9, 1, 2] and 0 not in solved

# %% text compression by huffman coding
import heapq
from collections import Counter
from itertools import count


def huffman(text):
    tie = count()
    heap = [(n, next(tie), char) for char, n in sorted(Counter(text).items())]
    heapq.heapify(heap)
    while len(heap) > 1:
        (n1, _, a), (n2, _, b) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (n1 + n2, next(tie), (a, b)))
    codes = {}

    def assign(node, prefix):
        if isinstance(node, str):
            codes[node] = prefix or "0"
        else:
            assign(node[0], prefix + "0")
            assign(node[1], prefix + "1")

    assign(heap[0][2], "")
    return codes


codes = huffman("abracadabra")
bits = "".join(codes[c] for c in "abracadabra")
assert len(codes["a"]) == 1 and len(bits) == 23
decoded, current, reverse = "", "", {v: k for k, v in codes.items()}
for bit in bits:
    current += bit
    if current in reverse:
        decoded, current = decoded + reverse[current], ""
assert decoded == "abracadabra"

# %% simulated annealing with a seeded generator
import math
import random


def anneal(cities, seed=0, steps=2000):
    rng = random.Random(seed)
    tour = list(range(len(cities)))

    def length(t):
        return sum(math.dist(cities[a], cities[b]) for a, b in zip(t, t[1:] + t[:1]))

    best, now = length(tour), length(tour)
    for step in range(steps):
        temperature = max(1e-3, 1 - step / steps)
        i, j = sorted(rng.sample(range(len(cities)), 2))
        candidate = tour[:i] + tour[i : j + 1][::-1] + tour[j + 1 :]
        new = length(candidate)
        if new < now or rng.random() < math.exp((now - new) / temperature):
            tour, now = candidate, new
            best = min(best, now)
    return best


square = [(0, 0), (1, 1), (0, 1), (1, 0), (2, 1), (2, 0)]
assert math.isclose(anneal(square), 6.0)
