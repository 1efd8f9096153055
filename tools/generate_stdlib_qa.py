"""Write the default data set, data/stdlib_qa, from the standard library's own docstrings.

    python tools/generate_stdlib_qa.py

The rows depend on the Python version that runs this script, so they are committed;
data/stdlib_qa/README.md names the version. The same version writes the same bytes.
"""

from __future__ import annotations

import argparse
import enum
import functools
import hashlib
import importlib
import inspect
import json
import random
import re
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

DEFAULT_OUTPUT_DIR = Path(__file__).resolve().parents[1] / "data" / "stdlib_qa"

# Answer length, in characters.
MIN_ANSWER = 50
MAX_ANSWER = 600
# A further paragraph is added only while the answer stays below this many characters.
SOFT_LIMIT = 520
# A signature longer than this is a wall of keyword arguments, not an answer.
MAX_SIGNATURE = 140
# One in this many callables with a portable signature is also asked for its signature.
SIGNATURE_EVERY = 8

SHUFFLE_SEED = 0
# A top-level module is held out when sha256(name) mod HELD_OUT_BUCKETS is HELD_OUT_BUCKET.
# Modules differ in size: this bucket is the many small and medium ones that come to 10 % of
# the rows.
HELD_OUT_BUCKETS = 6
HELD_OUT_BUCKET = 5

# Modules that import on every platform, in every ordinary build and in Python 3.11 and 3.12,
# without side effects. `builtins` comes first so that `open` is not named `io.open`.
_MODULE_NAMES = """
builtins abc argparse array ast asyncio atexit base64 bdb binascii bisect calendar cmath cmd
code codecs codeop collections collections.abc compileall concurrent.futures configparser
contextlib contextvars copy copyreg csv dataclasses datetime decimal difflib dis doctest
email email.charset email.encoders email.errors email.generator email.header
email.headerregistry email.message email.parser email.policy email.utils enum faulthandler
filecmp fileinput fnmatch fractions ftplib functools gc getopt getpass gettext glob graphlib
gzip hashlib heapq hmac html html.parser http http.client http.cookiejar http.cookies
http.server imaplib importlib importlib.abc importlib.machinery importlib.metadata
importlib.resources importlib.util inspect io ipaddress itertools json json.decoder
json.encoder keyword linecache locale logging logging.config logging.handlers mailbox marshal
math mimetypes mmap modulefinder multiprocessing multiprocessing.connection
multiprocessing.managers multiprocessing.pool multiprocessing.shared_memory netrc numbers
operator optparse os os.path pathlib pdb pickle pickletools pkgutil platform plistlib poplib
pprint profile pstats py_compile pyclbr pydoc queue quopri random re reprlib runpy sched
secrets select selectors shelve shlex shutil signal site smtplib socket socketserver stat
statistics string struct subprocess symtable sysconfig tabnanny tarfile tempfile textwrap
threading time timeit token tokenize tomllib trace traceback tracemalloc types typing
unicodedata unittest unittest.mock urllib.error urllib.parse urllib.request urllib.response
urllib.robotparser uuid warnings wave weakref webbrowser wsgiref.handlers wsgiref.headers
wsgiref.simple_server wsgiref.util xml.dom xml.dom.minidom xml.dom.pulldom
xml.etree.ElementTree xml.sax xml.sax.handler xml.sax.saxutils xml.sax.xmlreader
xmlrpc.client xmlrpc.server zipapp zipfile zipimport zlib zoneinfo
"""
MODULES = tuple(_MODULE_NAMES.split())

# Where a listed module keeps its public functions, when that is not a private module.
IMPLEMENTED_IN = {
    "os": {"posix", "nt"},
    "os.path": {"posixpath", "ntpath", "genericpath"},
}


class Row(TypedDict):
    """One line of a data file."""

    instruction: str
    response: str
    module: str


class Documented(NamedTuple):
    """One public object that has a docstring of its own."""

    name: str  # as a user writes it: "os.path.join", "str.split"
    module: str  # top-level module
    kind: str  # "module", "class", "exception", "function", "method" or "property"
    value: object


QUESTIONS = {
    "module": (
        "What is the `{name}` module for?",
        "What does Python's `{name}` module provide?",
        "Describe the `{name}` module of the Python standard library.",
    ),
    "class": (
        "What is the `{name}` class in Python?",
        "What is `{name}` used for in Python?",
        "Describe the Python class `{name}`.",
    ),
    "exception": (
        "What does the exception `{name}` mean in Python?",
        "When does Python raise `{name}`?",
    ),
    "function": (
        "What does `{name}` do in Python?",
        "Explain the Python function `{name}`.",
        "What is `{name}` used for in Python?",
        "What happens when you call `{name}()` in Python?",
    ),
    "method": (
        "What does the method `{name}` do in Python?",
        "What does `{name}` do in Python?",
        "Explain the Python method `{name}`.",
        "What happens when you call `{name}()` in Python?",
    ),
    "property": (
        "What does the attribute `{name}` hold in Python?",
        "What is the attribute `{name}` in Python?",
    ),
    "signature": (
        "What is the signature of `{name}`?",
        "Which arguments does `{name}` take?",
        "How do you call `{name}`?",
    ),
}


# ---------------------------------------------------------------- public objects


def documented_objects() -> list[Documented]:
    """Return the documented public objects of `MODULES`, each once under its canonical name.

    Raises ImportError when a module of `MODULES` is missing from this Python.
    """
    found: list[Documented] = []
    seen: set[int] = set()
    for module_name in MODULES:
        found.extend(_objects_of_module(module_name, seen))
    return found


def _objects_of_module(module_name: str, seen: set[int]) -> Iterator[Documented]:
    """Yield the module, then its functions, then its classes with their members."""
    module = importlib.import_module(module_name)
    top_level = module_name.partition(".")[0]
    prefix = "" if module_name == "builtins" else f"{module_name}."
    if module_name != "builtins" and module.__doc__:
        yield Documented(module_name, top_level, "module", module)

    members = [(name, vars(module).get(name)) for name in _public_names(module)]
    own = [(name, value) for name, value in members if _belongs(name, value, module)]
    for name, value in own:
        if inspect.isroutine(value) and id(value) not in seen:
            seen.add(id(value))
            yield Documented(prefix + name, top_level, "function", value)
    for name, value in own:
        if inspect.isclass(value) and id(value) not in seen:
            seen.add(id(value))
            kind = "exception" if issubclass(value, BaseException) else "class"
            yield Documented(prefix + name, top_level, kind, value)
            yield from _members_of_class(value, prefix + name, top_level, seen)


def _public_names(module: types.ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or list(vars(module))
    return sorted({name for name in names if not name.startswith("_")})


def _belongs(name: str, value: object, module: types.ModuleType) -> bool:
    """Say whether `value` is defined by `module` (or by its private parts) as `name`."""
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        return False
    if getattr(value, "__name__", None) != name:  # an alias of something named otherwise
        return False
    if module.__name__ == "builtins":
        return True
    home = getattr(value, "__module__", None) or ""
    public_name = "os.path" if module is sys.modules["os.path"] else module.__name__
    if home in (module.__name__, public_name) or home in IMPLEMENTED_IN.get(public_name, ()):
        return True
    if home in MODULES:  # listed there
        return False
    in_all = name in getattr(module, "__all__", ())
    return in_all or home == f"_{module.__name__}"


def _members_of_class(
    owner: type, owner_name: str, top_level: str, seen: set[int]
) -> Iterator[Documented]:
    """Yield the methods and properties that the class itself defines."""
    for name, value in sorted(vars(owner).items()):
        if name.startswith(("_", "do_", "help_")):  # the last two handle a typed command
            continue
        function = getattr(value, "__func__", value)  # inside a static or class method
        if id(function) in seen:
            continue
        if isinstance(value, (property, functools.cached_property, types.GetSetDescriptorType)):
            kind = "property"
        elif inspect.isroutine(function) and getattr(function, "__name__", None) == name:
            kind = "method"
        else:
            continue
        seen.add(id(function))
        yield Documented(f"{owner_name}.{name}", top_level, kind, function)


# ---------------------------------------------------------------- docstring to answer

# "S.find(sub[, start]) -> int", "get(key, default=None)", "poll() --> integer"
_SIGNATURE_LINE = re.compile(r"^[\w.]+\(.*\)\s*(?:-+>\s*(?:\S+\s*){0,4})?[.:]?$")
# "compress(data) -- Compress data." or "acos(x) -> Return the arc cosine of x."
_SIGNATURE_PREFIX = re.compile(
    r"^[\w.]+\([^()]*\)\s*(?:--\s*|(?:-+>|:|=)\s*(?:None\.\s+)?(?=[A-Z]))"
)
_ROLE = re.compile(r":(?:\w+:)?\w+:`(~?)([^`<>]+?)(?:\s*<[^`]*>)?`")
_LATEX_QUOTE = re.compile(r"(?<![`\w])`([^`'\s]+)'(?!\w)")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)\s+(?=[A-Z`\"'(])")
# A line that belongs to an example, a list, a table, a heading or a usage text.
_NOT_PROSE_PATTERNS = (
    r">>>|::$|<instance>",
    r"^\s*[-*+o#|=~]\s",
    r"^\s*\d+[.)]\s",
    r"^[-=~^*]{3,}",
    r"^\.\. |^:\w+|^\s*@",
    r"\S {3,}\S",
    r"^\w+\s+--?\s|^'\w+'.* -- ",
)
_NOT_PROSE = re.compile("|".join(_NOT_PROSE_PATTERNS))
# The last words of a line that an example or a list continues.
_DANGLING = re.compile(
    r"\b(?:that|this|as|is|are|to|with|and|or|the|a|an|by|of|for|in|if|like|from|e\.g|i\.e)$"
)
# Text that is wrong or useless outside its source file.
_UNWANTED_PATTERNS = (
    # addresses, paths and links
    r"0x[0-9a-fA-F]{5,}",
    r"(?<![\w.<])/(?:usr|home|root|tmp|etc|var|opt|bin|dev|lib|path)\b",
    r"\b[A-Z]:\\",
    r"https?://",
    # pointers to text that is not in the answer
    r"\bbelow\b|\babove\b|following|as follows|for example:|then does:",
    r"^See |^Ditto|^This method$|^Here's|\bthis file\b|__doc__|help\(type",
    # notes of the authors
    r"\bX{3}\b|TODO|FIXME|Author|Copyright|Written by|Thanks|[Ii]ssue #|\$Id",
    r"\bI\b|^Internal|\(internal\)|\bprivate\b|self\._|^Override",
    # notation instead of a sentence
    r"->|:param| : \[|\w = \w+ \||^Windows:|Alias for field",
    r",\.$|\.\.\.$|^[^.]*\?",
)
_UNWANTED = re.compile("|".join(_UNWANTED_PATTERNS))


def answer_from_docstring(docstring: str | None, name: str) -> str | None:
    """Return the leading prose of a docstring as whole sentences, or None when it has none.

    `name` is the object's dotted name. The answer has `MIN_ANSWER` to `MAX_ANSWER` characters;
    paragraphs are separated by a blank line and each stands on one line.
    """
    if not docstring:
        return None
    answer = ""
    for block in _prose_blocks(docstring, name):
        separator = "\n\n" if answer else ""
        if answer and len(answer) + len(separator) + len(block) > SOFT_LIMIT:
            break
        answer += separator + block
    if not MIN_ANSWER <= len(answer) <= MAX_ANSWER or _UNWANTED.search(answer):
        return None
    if answer.count("(") != answer.count(")") or answer.count("`") % 2:
        return None
    letters = sum(character.isalpha() or character == " " for character in answer)
    if letters < 0.8 * len(answer) or len(answer.split()) < 4:
        return None
    return answer


def _prose_blocks(docstring: str, name: str) -> Iterator[str]:
    """Yield the leading paragraphs of a docstring until the first that is not prose."""
    paragraphs = re.split(r"\n[ \t]*\n", inspect.cleandoc(docstring))
    first = True
    for paragraph in paragraphs:
        lines = paragraph.split("\n")
        while first and lines and _SIGNATURE_LINE.match(lines[0].strip()):
            lines.pop(0)
        if not lines:
            continue
        lines = inspect.cleandoc("\n".join(lines)).split("\n")
        if any(_NOT_PROSE.search(line) or line.startswith(" ") for line in lines):
            return
        text = _clean("\n".join(lines))
        if first:
            text = _SIGNATURE_PREFIX.sub("", text)
            short_name = re.escape(name.rpartition(".")[2])
            text = re.sub(rf"^(?:The |Module )?{short_name}(?:\(\)| module)?(?: --?|:) ", "", text)
            text = _capitalise(text)
        text, complete = _whole_sentences(text, may_add_full_stop=first)
        if not text or not re.match(r"[A-Z`'\"(]", text):
            return
        if not first and (_UNWANTED.search(text) or re.match(r"[\w ]+:", text)):
            return
        yield text
        if not complete:
            return
        first = False


def _clean(text: str) -> str:
    """Turn reStructuredText and LaTeX-style quotes into plain Markdown code spans."""
    text = re.sub(r"(?<=\w-)\n(?!and |or )", "", text)  # a word hyphenated over two lines
    text = _ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    text = re.sub(r"`{1,2}([^`'\s]+)(?:''|`')", r"`\1`", text)
    text = re.sub(r"``(.+?)''", r'"\1"', text)
    text = _LATEX_QUOTE.sub(r"`\1`", text)
    text = re.sub(r"(?<![*\w])\*(\w+)\*(?![*\w])", r"\1", text)
    return re.sub(r"\s+", " ", text).strip()


def _capitalise(text: str) -> str:
    """Capitalise the first word unless it is an identifier such as `os.path` or `max_size`."""
    word = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if re.fullmatch(r"[a-z]+,?", word) else text


def _whole_sentences(text: str, *, may_add_full_stop: bool) -> tuple[str, bool]:
    """Cut `text` to whole sentences of `MAX_ANSWER` characters; say whether its end is kept.

    A sentence "See ..." is left out: what it points to is not in the answer.
    """
    sentences = _SENTENCE_END.split(text)
    last = sentences[-1]
    complete = True
    if not re.search(r"(?<!e\.g)(?<!i\.e)[.!?][)\"'`]?$", last):
        if may_add_full_stop and re.search(r"[\w)`'\"\]]$", last) and not _DANGLING.search(last):
            sentences[-1] = last + "."
        else:
            sentences.pop()
            complete = False
    kept: list[str] = []
    for sentence in sentences:
        if sentence.startswith("See "):
            continue
        if len(" ".join([*kept, sentence])) > MAX_ANSWER:
            return " ".join(kept), False
        kept.append(sentence)
    return " ".join(kept), complete


# ---------------------------------------------------------------- signatures


def portable_signature(documented: Documented) -> str | None:
    """Return "name(arg, option=1)" without annotations, or None when it would not be portable.

    Only None, numbers, booleans, empty tuples and plain strings are accepted as defaults: any
    other prints an address, a path or a name that means nothing outside its module.
    """
    if documented.kind not in ("function", "method") or not callable(documented.value):
        return None
    try:
        signature = inspect.signature(documented.value)
    except (TypeError, ValueError, AttributeError):  # a C function that does not say, or wrongly
        return None
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls", "$self"):
        parameters = parameters[1:]
    if not parameters or not all(_is_portable(p.default) for p in parameters):
        return None
    if any(p.name.startswith("_") for p in parameters):
        return None
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in bare):
        return None
    text = documented.name + str(inspect.Signature(bare))
    return text if len(text) <= MAX_SIGNATURE else None


def _is_portable(default: object) -> bool:
    if default is inspect.Parameter.empty or default is None or default == ():
        return True
    if isinstance(default, enum.Enum):
        return False
    if isinstance(default, str):
        return bool(re.fullmatch(r"[\w .,:%-]*", default))
    return isinstance(default, (bool, int, float)) and abs(default) < 1_000_000


# ---------------------------------------------------------------- rows


def build_rows() -> tuple[list[Row], list[Row]]:
    """Return the train rows and the held-out rows, each in its final order."""
    rows: list[Row] = []
    answers: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for documented in documented_objects():
            for row in _rows_of(documented):
                if row["response"] not in answers:
                    answers.add(row["response"])
                    rows.append(row)
    rows.sort(key=lambda row: (row["module"], row["instruction"], row["response"]))
    train = [row for row in rows if not is_held_out(row["module"])]
    held_out = [row for row in rows if is_held_out(row["module"])]
    for part in (train, held_out):
        random.Random(SHUFFLE_SEED).shuffle(part)
    return train, held_out


def _rows_of(documented: Documented) -> Iterator[Row]:
    name, module, kind, value = documented
    # A class without a docstring of its own would answer with its parent's.
    docstring = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    answer = answer_from_docstring(docstring if isinstance(docstring, str) else None, name)
    if answer is None:
        return
    yield Row(instruction=_question(kind, name), response=answer, module=module)
    signature = portable_signature(documented)
    if signature and _stable_hash(f"signature {name}") % SIGNATURE_EVERY == 0:
        summary = _SENTENCE_END.split(answer.split("\n\n", 1)[0])[0]
        response = f"`{signature}`\n\n{summary}"
        if MIN_ANSWER <= len(response) <= MAX_ANSWER:
            yield Row(instruction=_question("signature", name), response=response, module=module)


def _question(kind: str, name: str) -> str:
    templates = QUESTIONS[kind]
    return templates[_stable_hash(name) % len(templates)].format(name=name)


def _stable_hash(text: str) -> int:
    """Return the same number for `text` in every process, which `hash` does not."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def is_held_out(top_level_module: str) -> bool:
    """Say whether every row of this module goes to the held-out file."""
    return _stable_hash(top_level_module) % HELD_OUT_BUCKETS == HELD_OUT_BUCKET


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    """Write one JSON object a line, in UTF-8 with "\\n" line ends on every platform."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_bytes("".join(lines).encode("utf-8"))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write train.jsonl and held_out.jsonl from the standard library's docstrings."
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=DEFAULT_OUTPUT_DIR,
        help="folder for the two files (default: data/stdlib_qa of this repository)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    output_dir: Path = make_parser().parse_args(arguments).output_dir
    if sys.flags.optimize >= 2:
        raise SystemExit("python -OO removes docstrings: run this script without -OO.")
    output_dir.mkdir(parents=True, exist_ok=True)
    train, held_out = build_rows()
    for name, rows in (("train.jsonl", train), ("held_out.jsonl", held_out)):
        write_jsonl(output_dir / name, rows)
        print(f"{output_dir / name}: {len(rows):,} rows")


if __name__ == "__main__":
    main()
