"""Mutation testing: changes mergec a little, and sees whether the tests notice.

    python tests/mutants/run.py 'compiler/**/*.py' --sample 60 --seed 1

First it measures, once, which statements each test reaches (minutes; kept, and made anew only where
modules or tests have changed). Then it draws mutants, runs for each the tests that reach the
changed statement, the quickest first, up to the first that fails, and prints what no test has
noticed. `--all` runs every mutant. `equivalent.toml` lists those that were looked at and change
nothing that a user, or a test of what is right, could tell.

Run it where nothing can be lost: a mutant of code that deletes files may delete other ones.

mutmut and cosmic-ray do the like for packages whose folder is named as they are. Here `mergec` is
the root of the repository itself, which mutmut cannot copy and find again, and cosmic-ray rewrites
the files of the one tree, so that mutants wait for each other; and neither follows tests into the
processes that they start.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import hashlib
import importlib
import json
import marshal
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from operators import Mutant, mutants, mutated

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

PACKAGES = ("grammar", "compiler", "runtime", "cli")
"""What is measured, and may be changed."""

FIRST = 8.0
"""Seconds of tests that are tried first. Most mutants die here."""

QUICK = 0.3
"""Seconds that a quick test takes at most."""

FILES = 6
"""How many test files these are of."""

OPTIONS = ("-q", "-p", "no:cacheprovider", "--no-header", "--tb=line")
"""Of pytest, whatever is run."""

LEFT_OUT = ("tests/test_demo.py",)
"""Files that take minutes; this one trains models, and what it merges others merge as well."""

DEAD = ("killed", "too slow")


def sources() -> dict[str, Path]:
    """The modules by their names."""
    found = {}
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("mergec", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


# Which test reaches what


@dataclass
class Test:
    name: str
    seconds: float
    reached: int
    """Byte k, as a number's: place k."""

    @property
    def file(self) -> str:
        return self.name.split("::")[0]


class Map:
    """Which tests reach a statement."""

    def __init__(self, places: Sequence[tuple[str, int]], tests: Sequence[Test]) -> None:
        self._bits: dict[str, int] = {}
        self._place: dict[tuple[str, int], int] = {}
        for k, (module, line) in enumerate(places):
            self._bits[module] = self._bits.get(module, 0) | 1 << 8 * k
            self._place[module, line] = k
        self._tests = sorted(tests, key=lambda t: t.seconds)
        self._modules = sources()

    def tests(self, mutant: Mutant) -> list[Test]:
        """The tests that may notice a mutant, the quickest first.

        Of what runs at import, those that reach the module or one that imports it: the statement
        itself is reached by no test, or by the first in its process alone.
        """
        if not mutant.always:
            bits = 1 << 8 * self._place[mutant.module, mutant.line]
        else:
            bits = self._bits.get(mutant.module, 0)
            last = mutant.module.rpartition(".")[2]
            for module, path in self._modules.items():
                if f".{last} import" in path.read_text("utf-8"):
                    bits |= self._bits.get(module, 0)
        return [t for t in self._tests if t.reached & bits]


def measured(path: Path, jobs: int) -> Map:
    """The map in a file, made or brought up to date."""
    modules = {name: _digest([p]) for name, p in sources().items()}
    # a helper of the tests counts for all of them
    others = (p for p in (ROOT / "tests").rglob("*.py") if not p.name.startswith("test_") and HERE not in p.parents)
    helpers = _digest(sorted(others))
    known: dict[str, object] = {}
    if path.exists():
        known = json.loads(path.read_text("utf-8"))
    files = {str(p.relative_to(ROOT)): _digest([p]) for p in sorted((ROOT / "tests").rglob("test_*.py"))}
    files = {name: digest for name, digest in files.items() if name not in LEFT_OUT}
    if known.get("modules") != modules or known.get("helpers") != helpers:
        known = {"modules": modules, "helpers": helpers, "files": {}, "tests": []}
    old: dict[str, str] = known["files"]  # type: ignore[assignment]
    lines: list[dict[str, object]] = [t for t in known["tests"] if files.get(_file(t)) == old.get(_file(t))]  # type: ignore[attr-defined]
    new = [f for f, digest in files.items() if old.get(f) != digest]
    places = _places()
    if new:
        print(f"measuring {len(new)} test files", flush=True)
        began = time.monotonic()
        lines += _measure(new, places, jobs)
        print(f"measured in {time.monotonic() - began:.0f} s", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        known |= {"files": files, "tests": lines}
        path.write_text(json.dumps(known), "utf-8")
    for line in lines:
        if line["failed"]:
            print(f"left out, as it fails without a mutant: {line['test']}")
    tests = [
        Test(t["test"], t["seconds"], int.from_bytes(zlib.decompress(bytes.fromhex(t["reached"])), "little"))  # type: ignore[arg-type]
        for t in lines
        if not t["failed"]
    ]
    return Map(places, tests)


def _file(line: Mapping[str, object]) -> str:
    return str(line["test"]).split("::")[0]


def _digest(paths: Iterable[Path]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.blake2b(path.read_bytes()).digest())
    return total.hexdigest()


def _places() -> list[tuple[str, int]]:
    """Every statement of a function, as a module and a line; statements of one line are one
    place."""
    found: dict[tuple[str, int], None] = {}
    for module, path in sources().items():
        for body in _bodies(ast.parse(path.read_text("utf-8"))):
            found |= dict.fromkeys((module, s.lineno) for s in body)
    return list(found)


def _bodies(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """The lists of statements that are in functions."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                for name in ("body", "orelse", "finalbody"):
                    body = getattr(node, name, None)
                    if isinstance(body, list) and body:
                        yield body


def _measure(files: Sequence[str], places: Sequence[tuple[str, int]], jobs: int) -> list[dict[str, object]]:
    """Runs test files with every statement of the package marked."""
    numbers = {place: k for k, place in enumerate(places)}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for module, path in sources().items():
            tree = ast.parse(path.read_text("utf-8"))
            marked: set[int] = set()
            for body in list(_bodies(tree)):
                if id(body) in marked:
                    continue
                marked.add(id(body))
                for k in range(len(body) - 1, -1, -1):
                    statement = body[k]
                    first = k == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                    if first or isinstance(statement, ast.Global | ast.Nonlocal):
                        continue
                    mark = ast.parse(f"__reached__[{numbers[module, statement.lineno]}] = 1").body[0]
                    for node in ast.walk(mark):
                        ast.copy_location(node, statement)
                        if hasattr(node, "lineno"):
                            node.end_lineno = node.lineno  # type: ignore[attr-defined]
                    body.insert(k, mark)
            _serve(Path(folder, "served"), module, path, tree)
        results = Path(folder, "map")
        env = {"MUTANTS_SERVED": f"{folder}/served", "MUTANTS_MAP": str(results)}
        words = ("-p", "measured", "-n", str(jobs), "--dist", "loadfile", *files)
        command = [sys.executable, "-m", "pytest", *OPTIONS, *words]
        done = subprocess.run(command, cwd=ROOT, env=_environment(env), capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"pytest ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        parts = sorted(Path(folder).glob("map.*"))
        return [json.loads(line) for part in parts for line in part.read_text("utf-8").splitlines()]


def _serve(folder: Path, module: str, path: Path, tree: ast.Module) -> None:
    folder.mkdir(exist_ok=True)
    code = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
    (folder / f"{module}.code").write_bytes(marshal.dumps(code))


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    paths = [str(HERE / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


# Mutants and their ends


@dataclass
class Result:
    mutant: str
    place: str
    kind: str
    state: str
    by: str
    seconds: float


class Attempt:
    """The tests that may notice a mutant, in a process of their own, then in a second one."""

    def __init__(self, mutant: Mutant, index: int, path: Path, tests: Sequence[Test], budget: float) -> None:
        """`budget`: seconds of tests, as measured, that are run at most."""
        self._mutant, self._path, self._index = mutant, path, index
        self._began = time.monotonic()
        chosen, spent = [], 0.0
        for test in _in_turn(tests):
            spent += test.seconds
            if spent > budget and chosen:
                break
            chosen.append(test)
        self._said = ("survived", f"{len(chosen)} of {len(tests)} tests") if tests else ("not reached", "")
        self._parts = _parts(chosen)
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        self._deadline = 0.0
        self._tests: Sequence[Test] = ()
        self.pid = 0

    def begin(self) -> Result | None:
        """Starts the next process; the result where there is none to start."""
        part = next(self._parts, None)
        if part is None:
            return self._result(*self._said)
        folder = Path(self._folder.name)
        if not self._tests:
            tree = mutated(self._path.read_text("utf-8"), self._mutant.module, self._index)
            try:
                _serve(folder / "served", self._mutant.module, self._path, tree)
            except (SyntaxError, ValueError):
                return self._result("no program", "")
        self._tests = part
        (folder / "tmp").mkdir()
        # measured with another load of the machine, maybe
        lines = [f"{max(30.0, 10 * t.seconds):.0f} {t.name}\n" for t in part]
        (folder / "chosen").write_text("".join(lines), "utf-8")
        self._deadline = time.monotonic() + 120 + 6 * sum(t.seconds for t in part)
        self.pid = _forked(folder, list(dict.fromkeys(t.file for t in part)))
        return None

    def stop_if_late(self) -> None:
        if time.monotonic() > self._deadline:
            self._kill()

    def ended(self, status: int) -> Result | None:
        """What the end of the process says; None where the next one has begun."""
        # what tests have started, too
        self._kill()
        folder = Path(self._folder.name)
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        text = (folder / "output").read_text("utf-8", "replace")
        if status == 0:
            return self.begin()
        if time.monotonic() > self._deadline or "Timeout (0:" in text:
            return self._result("too slow", "")
        if status == 5:
            raise SystemExit(f"pytest found none of {self._tests[0].name}, …\n{text[-2000:]}")
        failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        by = (t.name for t in self._tests if failed and failed[0].partition(" ")[2].startswith(t.name))
        return self._result("killed", max(by, key=len, default=f"status {status}"))

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _result(self, state: str, by: str) -> Result:
        self._folder.cleanup()
        place = f"{self._path.relative_to(ROOT)}:{self._mutant.line}"
        return Result(self._mutant.key, place, self._mutant.kind, state, by, round(time.monotonic() - self._began, 1))


def _parts(tests: Sequence[Test]) -> Iterator[Sequence[Test]]:
    """Quick tests of a few files, so that no others have to be read; then all others."""
    files: dict[str, list[Test]] = {}
    for test in tests:
        files.setdefault(test.file, []).append(test)
    most = sorted(files, key=lambda f: -len(files[f]))[:FILES]
    quick, spent = [], 0.0
    for test in sorted(tests, key=lambda t: t.seconds):
        if test.file in most and spent + test.seconds <= FIRST:
            spent += test.seconds
            quick.append(test)
    names = {t.name for t in quick}
    yield from filter(None, (quick, [t for t in tests if t.name not in names]))


def _in_turn(tests: Sequence[Test]) -> list[Test]:
    """The quick ones first: of each file one, then of each the second, as tests of one file are
    much alike."""
    seen: dict[str, int] = {}
    rank = {}
    for test in tests:
        rank[test.name] = seen[test.file] = seen.get(test.file, 0) + 1
    return sorted(tests, key=lambda t: (t.seconds > QUICK, rank[t.name], t.seconds))


def _forked(folder: Path, files: Sequence[str]) -> int:
    """A process that runs the tests that `folder` lists, with the module that it serves, in a group
    of its own."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 3
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        env = {"MUTANTS_SERVED": f"{folder}/served", "MUTANTS_CHOSEN": f"{folder}/chosen", "TMPDIR": f"{folder}/tmp"}
        os.environ.update(_environment(env))
        tempfile.tempdir = None
        # as in a process that has the folder on PYTHONPATH from the start, and not that of this
        # file
        sys.path[0] = str(HERE / "hook")
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
        import pytest

        status = int(pytest.main([*OPTIONS, "-x", "-p", "chosen", *files]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def attempts(wanted: Sequence[tuple[Path, int, Mutant]], reach: Map, jobs: int, budget: float) -> Iterator[Result]:
    """How each mutant ends, in the order in which they do."""
    # each test process is a fork of this one, which has the slow imports behind it
    for name in ("torch", "transformers", "tokenizers", "hypothesis", "lark", "networkx", "yaml", "safetensors.torch"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    waiting = list(reversed(wanted))
    running: dict[int, Attempt] = {}
    while waiting or running:
        attempt, found = None, None
        if waiting and len(running) < jobs:
            path, index, mutant = waiting.pop()
            attempt = Attempt(mutant, index, path, reach.tests(mutant), budget)
            found = attempt.begin()
        else:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in running:
                attempt = running.pop(pid)
                found = attempt.ended(os.waitstatus_to_exitcode(status))
            else:
                for other in running.values():
                    other.stop_if_late()
                time.sleep(0.05)
        if found is not None:
            yield found
        elif attempt is not None:
            running[attempt.pid] = attempt


# The command line


def main() -> int:
    p = argparse.ArgumentParser(description="Mutation testing of mergec.")
    p.add_argument("modules", nargs="*", default=["compiler/**/*.py"], metavar="GLOB", help="files below the root")
    p.add_argument("--sample", type=int, default=60, metavar="N", help="how many mutants (default 60)")
    p.add_argument("--all", action="store_true", help="every mutant")
    p.add_argument("--seed", type=int, default=1, metavar="S", help="which ones (default 1)")
    p.add_argument("--only", default="", metavar="TEXT", help="mutants whose description has this text")
    p.add_argument("--list", action="store_true", help="print the mutants, and run none")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at once (default 2)")
    p.add_argument("--budget", type=float, default=120.0, metavar="SECONDS", help="of tests for a mutant (default 120)")
    p.add_argument("--map", type=Path, default=ROOT / ".venv/mutants-map.json", help="where the map is kept")
    p.add_argument("--results", type=Path, help="append results to this file, and run no mutant that is in it")
    given = p.parse_args()
    drawn = _drawn(given.modules, given.only)
    if not given.all and given.sample < len(drawn):
        picked = random.Random(given.seed).sample(range(len(drawn)), given.sample)
        drawn = [drawn[k] for k in sorted(picked)]
    if given.list:
        for path, _, mutant in drawn:
            print(f"{path.relative_to(ROOT)}:{mutant.line} [{mutant.kind}] {mutant.key}")
        return 0
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text("utf-8"))
    results: dict[str, Result] = {}
    if given.results is not None and given.results.exists():
        for line in given.results.read_text("utf-8").splitlines():
            result = Result(**json.loads(line))
            results[result.mutant] = result
    reach = measured(given.map, given.jobs)
    wanted = [m for m in drawn if m[2].name not in equivalent and m[2].key not in results]
    for done, result in enumerate(attempts(wanted, reach, given.jobs, given.budget), 1):
        results[result.mutant] = result
        print(f"{done}/{len(wanted)} {result.state} ({result.seconds} s) {result.mutant}  {result.by}", flush=True)
        if given.results is not None:
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(result)) + "\n")
    return _report([m for _, _, m in drawn], results, equivalent)


def _drawn(globs: Sequence[str], only: str) -> list[tuple[Path, int, Mutant]]:
    """The mutants of the modules that a glob matches, each with its file and its place among those
    of the file."""
    found = []
    for module, path in sources().items():
        name = str(path.relative_to(ROOT))
        # `**/` is any number of folders, none too
        if any(fnmatch.fnmatchcase(name, g) or fnmatch.fnmatchcase(name, g.replace("**/", "")) for g in globs):
            all_of_it = mutants(ast.parse(path.read_text("utf-8")), module)
            found += [(path, k, m) for k, m in enumerate(all_of_it) if only in m.key]
    return found


def _report(drawn: Sequence[Mutant], results: Mapping[str, Result], equivalent: Mapping[str, str]) -> int:
    states: dict[str, list[Result]] = {}
    for mutant in drawn:
        if mutant.key in results and mutant.name not in equivalent:
            states.setdefault(results[mutant.key].state, []).append(results[mutant.key])
    same = sum(m.name in equivalent for m in drawn)
    print()
    for state in ("survived", "not reached"):
        for result in states.get(state, []):
            print(f"{state}: {result.place} [{result.kind}] {result.by}\n    {result.mutant}")
    counts = {state: len(found) for state, found in states.items()} | {"equivalent": same}
    print(", ".join(f"{n} {state}" for state, n in sorted(counts.items())))
    dead = sum(len(states.get(s, [])) for s in DEAD)
    alive = sum(len(states.get(s, [])) for s in ("survived", "not reached"))
    print(f"{dead} of {dead + alive} noticed: {100 * dead / max(dead + alive, 1):.0f} %")
    return int(bool(alive))


if __name__ == "__main__":
    raise SystemExit(main())
