# %% write read and append text files
from pathlib import Path
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    path = Path(folder) / "notes.txt"
    path.write_text("one\ntwo\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write("three\n")
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip() for line in file]
    assert lines == ["one", "two", "three"]
    assert path.stat().st_size == 14 and path.suffix == ".txt" and path.exists()
    renamed = path.rename(path.with_name("other.md"))
    assert not path.exists() and renamed.read_text().count("\n") == 3

# %% walk a tree and summarise by suffix
import os
import tempfile
from collections import Counter
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    for name in ("a.py", "pkg/b.py", "pkg/data/c.csv", "d.md"):
        target = Path(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * len(name))
    suffixes = Counter(p.suffix for p in Path(folder).rglob("*") if p.is_file())
    sizes = {}
    for root, dirs, files in os.walk(folder):
        dirs.sort()
        sizes[os.path.relpath(root, folder)] = sum(os.path.getsize(os.path.join(root, f)) for f in files)
    assert suffixes == {".py": 2, ".csv": 1, ".md": 1}
    assert sizes == {".": 8, "pkg": 8, os.path.join("pkg", "data"): 14}
    assert sorted(os.listdir(folder)) == ["a.py", "d.md", "pkg"]
    assert [entry.name for entry in sorted(os.scandir(folder), key=lambda e: e.name) if entry.is_dir()] == ["pkg"]

# %% path arithmetic without touching the disk
import os.path
from pathlib import PurePosixPath, PureWindowsPath

p = PurePosixPath("/srv/data/../logs/app.tar.gz")
assert p.name == "app.tar.gz" and p.stem == "app.tar" and p.suffixes == [".tar", ".gz"]
assert str(p.parent / "x") == "/srv/data/../logs/x" and p.is_absolute()
assert PurePosixPath("a/b").joinpath("c", "d").parts == ("a", "b", "c", "d")
assert PurePosixPath("/a/b/c").relative_to("/a") == PurePosixPath("b/c")
assert PureWindowsPath(r"C:\Users\x").drive == "C:"
assert os.path.splitext("a/b.txt") == ("a/b", ".txt") and os.path.basename("a/b") == "b"
assert os.path.normpath("a//b/../c") == os.path.join("a", "c")
assert os.path.commonprefix(["interview", "internet"]) == "inter"

# %% csv and json on disk
import csv
import json
import os
import tempfile

folder = tempfile.mkdtemp()
source, target = os.path.join(folder, "in.csv"), os.path.join(folder, "out.json")
with open(source, "w", newline="") as file:
    csv.writer(file).writerows([["id", "n"], [1, 2], [3, 4]])
with open(source, newline="") as file, open(target, "w") as out:
    rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    json.dump(rows, out)
with open(target) as file:
    assert json.load(file) == [{"id": 1, "n": 2}, {"id": 3, "n": 4}]
os.remove(source)
os.unlink(target)
os.rmdir(folder)
assert not os.path.exists(folder)

# %% copy move and archive with shutil
import shutil
import tempfile
import zipfile
from pathlib import Path

root = Path(tempfile.mkdtemp())
(root / "src").mkdir()
(root / "src" / "a.txt").write_text("A")
shutil.copytree(root / "src", root / "copy")
shutil.move(str(root / "copy" / "a.txt"), str(root / "b.txt"))
archive = shutil.make_archive(str(root / "all"), "zip", root / "src")
with zipfile.ZipFile(archive) as zipped:
    assert zipped.namelist()[-1] == "a.txt" and zipped.read("a.txt") == b"A"
assert (root / "b.txt").read_text() == "A" and shutil.disk_usage(root).total > 0
shutil.rmtree(root)
assert not root.exists()

# %% temporary files and descriptors of our own
import os
import tempfile

with tempfile.NamedTemporaryFile("w+", suffix=".log") as file:
    file.write("hello")
    file.flush()
    with open(file.name) as again:
        assert again.read() == "hello"
descriptor, path = tempfile.mkstemp(text=True)
with os.fdopen(descriptor, "w") as file:
    file.write("x = 1\n")
    file.flush()
    os.fsync(file.fileno())
descriptor = os.open(path, os.O_RDONLY)
assert os.read(descriptor, 100) == b"x = 1\n" and os.fstat(descriptor).st_size == 6
os.close(descriptor)
os.remove(path)
with tempfile.TemporaryFile() as raw:
    raw.write(b"abc")
    raw.seek(1)
    assert raw.read() == b"bc"
with tempfile.SpooledTemporaryFile(max_size=10) as spool:
    spool.write(b"123")

# %% binary files seeking and memory maps
import mmap
import struct
import tempfile

with tempfile.TemporaryFile() as file:
    for i in range(5):
        file.write(struct.pack("<I", i * i))
    file.seek(3 * 4)
    assert struct.unpack("<I", file.read(4)) == (9,)
    file.flush()
    with mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[16:20] == struct.pack("<I", 16) and mapped.find(b"\x04") == 8
    assert file.tell() == 16

# %% glob patterns and file times
import glob
import os
import tempfile
import time
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    for name in ("x1.txt", "x2.txt", "y.txt", ".hidden"):
        Path(folder, name).touch()
    names = sorted(os.path.basename(p) for p in glob.glob(os.path.join(folder, "x*.txt")))
    assert names == ["x1.txt", "x2.txt"]
    path = Path(folder, "y.txt")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert time.gmtime(path.stat().st_mtime).tm_year == 2001
    newest = max(Path(folder).glob("*.txt"), key=lambda p: p.stat().st_mtime)
    assert newest.name.startswith("x")
    os.chmod(path, 0o600)
    assert oct(path.stat().st_mode & 0o777) == "0o600"

# %% compressed files and tar archives
import gzip
import io
import tarfile
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "log.gz")
    with gzip.open(path, "wt") as file:
        file.writelines(f"line {i}\n" for i in range(100))
    with gzip.open(path, "rt") as file:
        assert sum(1 for line in file if line.endswith("9\n")) == 10
    archive = Path(folder, "a.tar")
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("hello.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["hello.txt"] and tar.extractfile("hello.txt").read() == b"hello"

# %% fileinput linecache and reading in chunks
import fileinput
import hashlib
import linecache
import tempfile
from functools import partial
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    paths = []
    for i in range(2):
        path = Path(folder, f"{i}.txt")
        path.write_text(f"first {i}\nsecond {i}\n")
        paths.append(path)
    with fileinput.input(paths) as lines:
        assert [(lines.filelineno(), line.split()[0]) for line in lines][-1] == (2, "second")
    assert linecache.getline(str(paths[1]), 2) == "second 1\n"
    digest = hashlib.sha256()
    with open(paths[0], "rb") as file:
        for chunk in iter(partial(file.read, 4), b""):
            digest.update(chunk)
    assert digest.hexdigest() == hashlib.sha256(b"first 0\nsecond 0\n").hexdigest()

# %% pickle objects to disk and back
import pickle
import tempfile
from collections import OrderedDict, defaultdict
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

data = {
    "when": datetime(2024, 1, 2, 3), "amount": Decimal("1.50"), "ratio": Fraction(1, 3),
    "order": OrderedDict(a=1), "many": defaultdict(list, x=[1]), "path": Path("a/b"), "raw": b"\0\xff", "set": {1, 2},
}
for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
    assert pickle.loads(pickle.dumps(data, protocol)) == data
with tempfile.TemporaryFile() as file:
    pickle.dump(data, file)
    file.seek(0)
    assert pickle.load(file)["many"]["new"] == []
