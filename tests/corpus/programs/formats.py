# %% json encoder for own types and object hooks
import json
from datetime import date
from decimal import Decimal


class Encoder(json.JSONEncoder):
    def default(self, o):
        if isinstance(o, date):
            return {"__date__": o.isoformat()}
        if isinstance(o, (set, frozenset)):
            return sorted(o)
        return super().default(o)


def hook(obj):
    return date.fromisoformat(obj["__date__"]) if "__date__" in obj else obj


text = json.dumps({"when": date(2024, 1, 2), "tags": {"b", "a"}}, cls=Encoder, indent=2, sort_keys=True)
back = json.loads(text, object_hook=hook)
assert back == {"when": date(2024, 1, 2), "tags": ["a", "b"]}
assert json.loads("[1.10]", parse_float=Decimal) == [Decimal("1.10")]
try:
    json.loads('{"a": }')
except json.JSONDecodeError as error:
    assert error.pos == 6 and error.lineno == 1
try:
    json.dumps(object(), cls=Encoder)
except TypeError as error:
    assert "not JSON serializable" in str(error)

# %% json lines and nested lookups
import json
from functools import reduce

LINES = '{"user": {"id": 1, "tags": ["a"]}}\n\n{"user": {"id": 2}}\nnot json\n'


def get(obj, path, default=None):
    try:
        return reduce(lambda value, key: value[int(key) if key.isdigit() else key], path.split("."), obj)
    except (KeyError, IndexError, TypeError):
        return default


records, errors = [], []
for n, line in enumerate(LINES.splitlines(), 1):
    if not line.strip():
        continue
    try:
        records.append(json.loads(line))
    except json.decoder.JSONDecodeError as error:
        errors.append((n, error.msg))
assert [get(r, "user.id") for r in records] == [1, 2]
assert get(records[0], "user.tags.0") == "a" and get(records[1], "user.tags.0", "-") == "-"
assert errors == [(4, "Expecting value")]

# %% csv reading writing and dialects
import csv
import io

SOURCE = 'name,amount,note\n"Smith, J",10,"said ""hi"""\nLee,20,\n'
rows = list(csv.DictReader(io.StringIO(SOURCE)))
assert rows[0] == {"name": "Smith, J", "amount": "10", "note": 'said "hi"'}
out = io.StringIO()
writer = csv.DictWriter(out, fieldnames=["name", "total"], delimiter=";", lineterminator="\n")
writer.writeheader()
writer.writerows({"name": r["name"], "total": int(r["amount"]) * 2} for r in rows)
assert out.getvalue() == "name;total\nSmith, J;20\nLee;40\n"
assert list(csv.reader(["a\tb", "c\td"], delimiter="\t")) == [["a", "b"], ["c", "d"]]
assert csv.Sniffer().sniff("a|b|c\n1|2|3\n").delimiter == "|"

# %% xml parse query and build
import xml.etree.ElementTree as ET

SOURCE = """<catalog><book id="1"><title>A</title><price>10.5</price></book>
<book id="2" lang="fr"><title>B &amp; C</title><price>7</price></book></catalog>"""
root = ET.fromstring(SOURCE)
prices = {book.get("id"): float(book.findtext("price")) for book in root.iter("book")}
assert prices == {"1": 10.5, "2": 7.0}
assert root.find("./book[@lang='fr']/title").text == "B & C"
new = ET.SubElement(root, "book", id="3")
ET.SubElement(new, "title").text = "D"
new.set("lang", "en")
root.remove(root[0])
text = ET.tostring(root, encoding="unicode")
assert text.count("<book") == 2 and '<book id="3" lang="en"><title>D</title></book>' in text
try:
    ET.fromstring("<a><b></a>")
except ET.ParseError as error:
    assert error.position[0] == 1

# %% html escaping and a small parser
import html
from html.parser import HTMLParser


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links = []
        self._text = None

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append([dict(attrs).get("href"), ""])
            self._text = self.links[-1]

    def handle_data(self, data):
        if self._text is not None:
            self._text[1] += data

    def handle_endtag(self, tag):
        if tag == "a":
            self._text = None


parser = Links()
parser.feed('<p>See <a href="/a?x=1&amp;y=2">the <b>first</b></a> and <a href="b">second</a></p>')
assert parser.links == [["/a?x=1&y=2", "the first"], ["b", "second"]]
assert html.escape('<a href="x">') == "&lt;a href=&quot;x&quot;&gt;"
assert html.unescape("&eacute;&#39;&lt;") == "é'<"

# %% urls split joined and quoted
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

url = urlsplit("https://user@example.org:8443/a%20b/c?q=1&q=2&empty=#frag")
assert (url.hostname, url.port, url.path, url.fragment) == ("example.org", 8443, "/a%20b/c", "frag")
assert parse_qs(url.query, keep_blank_values=True) == {"q": ["1", "2"], "empty": [""]}
assert urlencode([("name", "Ann Lee"), ("x", "&")]) == "name=Ann+Lee&x=%26"
assert urljoin("https://h/a/b/c", "../d?x") == "https://h/a/d?x"
assert unquote(quote("naïve/path", safe="")) == "naïve/path"
assert urlunsplit(url._replace(query="", fragment="")) == "https://user@example.org:8443/a%20b/c"
assert dict(parse_qsl("a=1;b=2", separator=";")) == {"a": "1", "b": "2"}

# %% binary records with struct
import struct
from collections import namedtuple

Header = namedtuple("Header", "magic version count")
record = struct.Struct("<4sHI")
packed = record.pack(b"DATA", 2, 7)
assert len(packed) == record.size == 10
assert Header._make(record.unpack(packed)) == (b"DATA", 2, 7)
body = b"".join(struct.pack("<hf", i, i / 2) for i in range(3))
assert [n for n, _ in struct.iter_unpack("<hf", body)] == [0, 1, 2]
assert struct.unpack_from(">I", b"\0\0\0\0\x01\0", 2)[0] == 256
try:
    record.unpack(b"short")
except struct.error as error:
    assert "10 bytes" in str(error)

# %% hashes hmac and encodings
import base64
import hashlib
import hmac
import zlib

data = b"hello world"
assert hashlib.sha256(data).hexdigest().startswith("b94d27b9934d3e08")
assert hashlib.new("md5", data).hexdigest() == "5eb63bbbe01eeed093cb22bb8f5acdc3"
h = hashlib.blake2b(digest_size=8)
h.update(data)
assert len(h.digest()) == 8
mac = hmac.new(b"key", data, "sha256")
assert hmac.compare_digest(mac.hexdigest(), hmac.new(b"key", data, hashlib.sha256).hexdigest())
assert base64.b64decode(base64.b64encode(data)) == data
assert base64.urlsafe_b64encode(b"\xff\xfe") == b"__4=" and base64.b32encode(b"hi") == b"NBUQ===="
assert zlib.crc32(data) == 0x0D4A1185 and data.hex(" ", 4).startswith("68656c")

# %% compression in memory
import bz2
import gzip
import lzma
import zlib

text = b"to be or not to be " * 200
for module in (zlib, gzip, bz2, lzma):
    packed = module.compress(text)
    assert len(packed) < len(text) / 10 and module.decompress(packed) == text
compressor = zlib.compressobj(level=9)
stream = compressor.compress(text) + compressor.flush()
assert zlib.decompressobj().decompress(stream, 10) == text[:10]
try:
    zlib.decompress(b"not zlib")
except zlib.error as error:
    assert "incorrect header check" in str(error)

# %% ip addresses and networks
import ipaddress

net = ipaddress.ip_network("192.168.4.0/22")
assert ipaddress.ip_address("192.168.7.9") in net and net.num_addresses == 1024
assert [str(n) for n in net.subnets(new_prefix=23)] == ["192.168.4.0/23", "192.168.6.0/23"]
assert ipaddress.ip_address("::1").is_loopback and ipaddress.IPv4Address("8.8.8.8").is_global
assert str(ipaddress.summarize_address_range(*map(ipaddress.ip_address, ("10.0.0.0", "10.0.0.3"))).__next__()) == "10.0.0.0/30"
try:
    ipaddress.ip_address("300.1.1.1")
except ValueError as error:
    assert "does not appear to be" in str(error)

# %% uuids and secrets
import secrets
import string
import uuid

assert str(uuid.uuid5(uuid.NAMESPACE_DNS, "python.org")) == "886313e1-3b8a-5372-9b90-0c9aee199e5d"
one, two = uuid.uuid4(), uuid.uuid4()
assert one != two and uuid.UUID(str(one)) == one and one.version == 4
alphabet = string.ascii_letters + string.digits
password = "".join(secrets.choice(alphabet) for _ in range(16))
assert len(password) == 16 and set(password) <= set(alphabet)
assert len(secrets.token_hex(8)) == 16 and secrets.compare_digest("a", "a")

# %% text buffers and line endings
import io

buffer = io.StringIO()
print("one", "two", sep=",", file=buffer)
buffer.write("three")
buffer.seek(0)
assert buffer.readline() == "one,two\n" and buffer.read() == "three"
raw = io.BytesIO(b"a\r\nb\nc")
assert [line for line in raw] == [b"a\r\n", b"b\n", b"c"]
assert raw.getbuffer()[0] == 97
with io.StringIO("x\ny") as lines:
    assert [line.strip() for line in lines] == ["x", "y"]
assert b"caf\xc3\xa9".decode() == "café" and "café".encode("latin-1") == b"caf\xe9"
assert "a\ud800".encode("utf-8", "surrogatepass") and "é".encode("ascii", "xmlcharrefreplace") == b"&#233;"

# %% arrays memoryviews and bytes
import array

numbers = array.array("i", range(5))
numbers.append(9)
numbers[1:3] = array.array("i", [7, 8])
assert numbers.tolist() == [0, 7, 8, 3, 4, 9] and numbers.itemsize == 4
view = memoryview(bytearray(b"abcdef"))
view[1:3] = b"XY"
assert bytes(view[:4]) == b"aXYd" and view.nbytes == 6
table = bytes.maketrans(b"abc", b"xyz")
assert b"aabbcc".translate(table) == b"xxyyzz" and bytes([104, 105]) == b"hi"
data = bytearray(b"abc")
data += b"d"
data[0] = 65
assert data == b"Abcd" and bytes.fromhex("0aff") == b"\n\xff"

# %% toml and pretty printing
import pprint
import tomllib

config = tomllib.loads("""
title = "demo"
[owner]
born = 1979-05-27
[[servers]]
ip = "10.0.0.1"
ports = [8000, 8001]
[[servers]]
ip = "10.0.0.2"
""")
assert config["owner"]["born"].year == 1979 and [s["ip"] for s in config["servers"]] == ["10.0.0.1", "10.0.0.2"]
text = pprint.pformat({"b": [1, 2], "a": {"nested": "x" * 60, "more": list(range(20))}}, width=60)
assert text.startswith("{'a': {") and text.count("\n") > 3
assert pprint.pformat(config["servers"][1]) == "{'ip': '10.0.0.2'}"

# %% configparser from text
import configparser
import io

parser = configparser.ConfigParser()
parser.read_string("[DEFAULT]\nroot = /srv\n[web]\nport = 80\nlogs = %(root)s/logs\ndebug = yes\n")
assert parser.getint("web", "port") == 80 and parser["web"]["logs"] == "/srv/logs"
assert parser.getboolean("web", "debug") and parser.sections() == ["web"]
parser["new"] = {"a": "1"}
out = io.StringIO()
parser.write(out)
assert "[new]\na = 1\n" in out.getvalue()

# %% shell words and file name patterns
import fnmatch
import shlex

assert shlex.split("cp 'my file.txt' dest/ --mode=\"a b\"") == ["cp", "my file.txt", "dest/", "--mode=a b"]
assert shlex.quote("it's") == "'it'\"'\"'s'" and shlex.join(["a b", "c"]) == "'a b' c"
names = ["a.py", "b.txt", "test_a.py", "A.PY"]
assert fnmatch.filter(names, "*.py") == ["a.py", "test_a.py"]
assert fnmatch.fnmatchcase("test_a.py", "test_[ab].*")
