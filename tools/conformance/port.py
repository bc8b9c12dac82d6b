"""port.py SDIST DIRECTORY: brings the fuzzing client of autobahntestsuite, published for Python 2 only, to Python 3.

Everything that is changed is on this page. What a case sends and what it expects stays untouched:

1. Syntax, by the fixers of fissix (the maintained 2to3): print, except, raise, octal numbers, has_key, xrange, relative imports.
2. Byte strings become text in which each character stands for one byte (latin-1): sources are read as latin-1, and the
   calls that need real bytes are replaced by those of latin1.py. client.py converts at the border to the protocol core.
3. A few lines that Python 3 cannot run, listed in LINES with the reason. A line that is not found is an error.
"""

import re
import sys
import tarfile
from pathlib import Path, PurePosixPath

from fissix.refactor import RefactoringTool

FIXERS = ["except", "has_key", "import", "numliterals", "print", "raise", "unicode", "xrange"]

# The fuzzing client and what it imports; the suite's other tools are left behind.
WANTED = re.compile(r"(_version|caseset|fuzzing|interfaces|report|case/\w+)\.py|testdata/.+")

# Everywhere: where the border between text and bytes runs through the suite itself.
BYTES = [
    (r"^import (.*?), (pkg_resources, )?hashlib, binascii$", r"import \1, pkg_resources\nfrom autobahntestsuite.latin1 import binascii, hashlib"),
    (r"^import os, json, binascii, (.*)$", r"import os, json, \1\nfrom autobahntestsuite.latin1 import binascii, open"),
    (r"^import binascii$", r"from autobahntestsuite.latin1 import binascii"),
    (r"^from autobahn.websocket.utf8validator import Utf8Validator$", r"from autobahntestsuite.latin1 import Utf8Validator"),
    (r"\.decode\((['\"]utf-?8['\"])", r".encode('latin-1').decode(\1"),
    (r"\.encode\((['\"](?:utf|UTF)-?8['\"])\)", r".encode(\1).decode('latin-1')"),
]

# In one file: (file, text, replacement, how often).
LINES = [
    # An old-style class could be listed after `object`; in Python 3 every class is one.
    ("case/case6_x_x.py", "(object, Case, )", "(Case, )", 1),
    ("case/case7_7_X.py", "(object, Case, )", "(Case, )", 1),
    ("case/case7_9_X.py", "(object, Case, )", "(Case, )", 1),
    ("case/case9_7_X.py", "(object, Case, )", "(Case, )", 1),
    ("case/case12_x_x.py", "(object, Case, )", "(Case, )", 2),
    # Dividing whole numbers.
    ("case/case10_1_1.py", "len(self.payload) / self", "len(self.payload) // self", 1),
    # Test data are read as bytes and used as byte strings.
    ("case/case12_x_x.py", "open(fn, 'rb').read()", "open(fn, 'rb').read().decode('latin-1')", 1),
    # Not a case of the suite (its own list leaves it out), and it cannot be imported.
    ("case/__init__.py", "from .case9_9_1 import *\n", "", 1),
]


def port(path, source):
    """One module's Python 3 text."""
    fixers = [f"fissix.fixes.fix_{name}" for name in FIXERS]
    text = str(RefactoringTool(fixers).refactor_string(source, str(path)))
    for pattern, replacement in BYTES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    name = PurePosixPath(path).as_posix().split("autobahntestsuite/", 1)[1]
    for file, old, new, count in LINES:
        if file != name:
            continue
        if text.count(old) != count:
            raise SystemExit(f"port: {name} has {text.count(old)} times {old!r}, expected {count}")
        text = text.replace(old, new)
    return text


def main(sdist, directory):
    package = Path(directory) / "autobahntestsuite"
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            name = member.name.partition("/autobahntestsuite/")[2]
            if not member.isfile() or not WANTED.fullmatch(name):
                continue
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())
    # The fixer of relative imports looks for neighbours on disk, so all files have to be there first.
    (package / "__init__.py").write_text("from ._version import __version__ as version\n")
    (package / "latin1.py").write_bytes(Path(__file__).with_name("latin1.py").read_bytes())
    for path in sorted(package.rglob("*.py")):
        if path.parent == package and path.name in ("__init__.py", "latin1.py"):
            continue
        source = path.read_bytes().decode("latin-1").replace("\r\n", "\n") + "\n"
        source = re.sub(r"coding[=:]\s*[-\w.]+", "", source, count=1)
        path.write_text(port(path, source), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
