"""The code of a package's kernel: any change of it shows, in the digest and in what runs take over,
and nothing else does."""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from commands import mergec as command
from mergec.compiler.plan.codec import from_json, to_json
from mergec.runtime.catalog.extension_code import kernel_code
from packages import installed
from safetensors.torch import load_file, save_file

KERNEL = "import torch\n\n\ndef triple_it(out, tensors, numbers, scratch):\n    torch.mul(tensors[0], {}, out=out)\n"
INIT = """from mergec import Parameter, Primitive
X = (Parameter("x", kind="region"),)
TRIPLE = Primitive(name="triple_it", parameters=X, doc="three times", kernel="tripler.kernels:triple_it")
"""
FACTOR = 'let a = model("a.safetensors")\nlet b = model("b.safetensors")\n'
RECIPE = FACTOR + '"x.weight" = triple_it(a)\n"y.weight" = 0.5*a + 0.5*b\n"z.weight" = b\n'


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def digest(folder: Path, kernel: str = "tripler.kernels:triple_it", package: str = "tripler 0.1") -> str:
    """What a new process with this folder on its path says."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return kernel_code(kernel, package)
    finally:
        sys.path.remove(str(folder))


TREE = {
    "tripler/__init__.py": INIT,
    "tripler/kernels.py": KERNEL.format("3.0"),
    "tripler/helpers.py": "",
    "tripler/more/__init__.py": "",
    "tripler/more/deep.py": "",
    "tripler/loose/part.py": "",
    "tripler/_fast.so": "an extension",
    "tripler/csrc/fast.cu": "its source",
    "other/__init__.py": "",
    "single.py": "",
}

APPEND = "\n# another line\n"


@pytest.mark.parametrize("file", [name for name in TREE if name.startswith("tripler/")])
def test_each_module_of_the_package_counts(file: str, tmp_path: Path) -> None:
    before = digest(write(tmp_path, TREE))
    assert before == digest(tmp_path) != ""
    status = (tmp_path / file).stat()
    text = TREE[file]
    (tmp_path / file).write_text(text[:-1] + "#" if text else APPEND)
    os.utime(tmp_path / file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(tmp_path) != before
    (tmp_path / file).write_text(text)
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    "file",
    [
        *("other/__init__.py", "single.py", "tripler/README.md", "tripler/out/model.safetensors"),
        *("tripler/.git/hook.py", "tripler/__pycache__/kernels.cpython-311.pyc", "tripler/kernels.pyc"),
        "tripler/venv/lib/thing.py",
    ],
)
def test_nothing_else_does(file: str, tmp_path: Path) -> None:
    before = digest(write(tmp_path, TREE | {"tripler/venv/pyvenv.cfg": ""}))
    write(tmp_path, {file: "something else"})
    assert digest(tmp_path) == before


def test_a_module_more_or_less_counts(tmp_path: Path) -> None:
    before = digest(write(tmp_path, TREE))
    assert digest(write(tmp_path, {"tripler/new.py": ""})) != before
    (tmp_path / "tripler/new.py").unlink()
    (tmp_path / "tripler/helpers.py").rename(tmp_path / "tripler/helper.py")
    assert digest(tmp_path) != before


def test_name_and_version_count_and_the_place_does_not(tmp_path: Path) -> None:
    before = digest(write(tmp_path / "one", TREE))
    assert digest(tmp_path / "one", package="tripler 0.2") != before
    assert digest(write(tmp_path / "two", TREE)) == before


def test_a_link_in_a_circle_and_what_is_no_file(tmp_path: Path) -> None:
    before = digest(write(tmp_path, TREE))
    (tmp_path / "tripler/self").symlink_to(tmp_path / "tripler", target_is_directory=True)
    assert digest(tmp_path) == before
    (tmp_path / "tripler/dangling.py").symlink_to(tmp_path / "nowhere.py")
    os.mkfifo(tmp_path / "tripler/waiting.py")
    assert digest(tmp_path) not in ("", before)


def test_a_single_module(tmp_path: Path) -> None:
    before = digest(write(tmp_path, TREE), "single:f")
    write(tmp_path, {"tripler/kernels.py": "", "unrelated.py": ""})
    assert digest(tmp_path, "single:f") == before
    write(tmp_path, {"single.py": APPEND})
    assert digest(tmp_path, "single:f") != before


def test_packages_that_share_a_name(tmp_path: Path) -> None:
    files = {"shared/ours/__init__.py": "", "shared/ours/kernels.py": "", "shared/theirs/__init__.py": ""}
    files |= {"shared/loose.py": "", "shared/beside.py": ""}
    write(tmp_path, files)
    ours, loose = (lambda: digest(tmp_path, "shared.ours.kernels:f")), (lambda: digest(tmp_path, "shared.loose:f"))
    before = ours(), loose()
    assert all(before)
    write(tmp_path, {"shared/theirs/__init__.py": APPEND})
    assert (ours(), loose()) == before
    write(tmp_path, {"shared/ours/__init__.py": APPEND})
    assert ours() != before[0]
    write(tmp_path, {"shared/beside.py": APPEND})
    assert loose() != before[1]


def test_a_package_in_an_archive(tmp_path: Path) -> None:
    def pack(factor: str) -> str:
        archive = tmp_path / "packed.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name, text in (TREE | {"tripler/kernels.py": KERNEL.format(factor)}).items():
                file.writestr(zipfile.ZipInfo(name), text)
        sys.path_importer_cache.pop(str(archive), None)
        return digest(archive)

    before = pack("3.0")
    assert pack("3.0") == before != ""
    assert pack("5.0") != before


def record(folder: Path, rows: str) -> None:
    info = folder / "tripler-0.1.dist-info"
    write(info, {"METADATA": "Metadata-Version: 2.1\nName: tripler\nVersion: 0.1\n", "RECORD": rows})


def test_what_the_installer_has_noted_counts(tmp_path: Path) -> None:
    """Data that comes along with the package, and modules beside it."""
    rows = (
        "tripler/table.npy,sha256={},3\n_helper.py,,\ntripler-0.1.dist-info/RECORD,,\n../../../bin/tool,sha256={},1\n"
    )
    write(tmp_path, TREE | {"_helper.py": ""})
    record(tmp_path, rows.format("one", "one"))
    before = digest(tmp_path)
    record(tmp_path, rows.format("one", "two"))
    assert digest(tmp_path) == before
    record(tmp_path, rows.format("two", "one"))
    assert digest(tmp_path) != before
    record(tmp_path, rows.format("one", "one"))
    write(tmp_path, {"_helper.py": APPEND})
    assert digest(tmp_path) != before


def test_a_development_install(tmp_path: Path) -> None:
    """The modules lie elsewhere; of these, a list of names is all that there is."""
    source, site = write(tmp_path / "source", TREE | {"tripler_more.py": ""}), tmp_path / "site"
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: tripler\nVersion: 0.1\n",
        "top_level.txt": "tripler\ntripler_more",
    }
    write(site / "tripler-0.1.dist-info", info)
    sys.path.insert(0, str(site))
    try:
        before = digest(source)
        write(source, {"other/__init__.py": APPEND})
        assert digest(source) == before
        write(source, {"tripler_more.py": APPEND})
        assert digest(source) != before
    finally:
        sys.path.remove(str(site))


@pytest.mark.parametrize("kernel", ["no_such_package:f", "no_such.package.at_all:f", "__main__:typed_in"])
def test_code_that_nothing_tells(kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert digest(tmp_path, kernel) == ""


def test_hundreds_of_modules_take_no_time(tmp_path: Path) -> None:
    write(tmp_path, TREE | {f"tripler/many/m{k}.py": f"x = {k}\n" * 200 for k in range(600)})
    digest(tmp_path)
    began = time.process_time()
    digest(tmp_path)
    assert time.process_time() - began < 0.5


def test_what_is_imported_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that was edited after its import does what it did before, until it is loaded
    again."""
    write(tmp_path, {"stays/__init__.py": "", "stays/kernels.py": KERNEL.format("3.0")})
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("stays.kernels")
    before = kernel_code("stays.kernels:triple_it", "")
    write(tmp_path, {"stays/kernels.py": KERNEL.format("5.00")})
    assert kernel_code("stays.kernels:triple_it", "") == before
    importlib.reload(module)
    assert kernel_code("stays.kernels:triple_it", "") != before


# --- keys ----------------------------------------------------------------------------------------

SHAPES = {"x.weight": ("F32", (4, 4)), "y.weight": ("F32", (4, 4)), "z.weight": ("F32", (4,))}
CATALOG = mergec.MemoryCatalog({f"{name}.safetensors": {"tensors": SHAPES} for name in "ab"})


def key_of(recipe: str = RECIPE, catalog: Any = CATALOG, **options: Any) -> dict[str, str]:
    compiled = mergec.compile(recipe, catalog=catalog, device="cpu", **options)
    return {t.name: t.key for t in compiled.plan.tensors}


def test_keys_of_what_the_package_makes_and_of_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"tripler/__init__.py": INIT, "tripler/kernels.py": KERNEL.format("3.0"), "tripler/more.py": ""})
    installed(tmp_path, monkeypatch, "tripler", "0.1", "triple_it = tripler:TRIPLE\n")
    recipe = RECIPE + '"y.weight" = a * across(total(triple_it(b)))\n'
    before, plain = key_of(), key_of(recipe)
    for file in ("tripler/kernels.py", "tripler/more.py"):
        write(tmp_path, {file: KERNEL.format("5.0")})
        assert {n for n, key in key_of().items() if before[n] != key} == {"x.weight"}
        assert {n for n, key in key_of(recipe).items() if plain[n] != key} == {"x.weight", "y.weight"}
        before, plain = key_of(), key_of(recipe)
    assert key_of() == before


def test_keys_of_a_function_that_was_typed_in_are_like_no_others() -> None:
    given = mergec.Primitive("typed", (mergec.Parameter("x", kind="region"),), "", "no_such_module:typed")
    recipe = FACTOR + '"x.weight" = typed(a)\n"y.weight" = 0.5*a\n"z.weight" = a\n'
    one, two = (key_of(recipe, primitives=[given]) for _ in range(2))
    assert {n for n in one if one[n] != two[n]} == {"x.weight"}


def scaled(by: float, out: torch.Tensor, tensors: Any, *_: Any) -> None:
    torch.mul(tensors[0], by, out=out)


def test_what_a_function_made_that_was_typed_in_is_never_taken_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("typed_in")
    monkeypatch.setitem(sys.modules, "typed_in", module)
    given = mergec.Primitive("typed", (mergec.Parameter("x", kind="region"),), "", "typed_in:typed")
    (folder / "r.mrg").write_text(FACTOR + "* = typed(a)")
    plan = mergec.compile(folder / "r.mrg", primitives=[given], device="cpu").plan
    for factor in (3, 5):
        module.typed = functools.partial(scaled, factor)
        report = mergec.run(plan, folder / "out", force=True)
        assert (report.unchanged, report.reused) == (False, 0)
        made = load_file(folder / "out/model.safetensors")["x.weight"]
        torch.testing.assert_close(made, factor * load_file(folder / "a.safetensors")["x.weight"])
    (recipe,) = [
        c for c in mergec.verify(folder / "out", primitives=[given], folder=folder).checks if c.name == "recipe"
    ]
    assert recipe.verdict.value == "not checked"
    assert recipe.detail == "compiles to 3 other keys; it was made by a function whose code nothing tells"


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "site", {"tripler/__init__.py": INIT, "tripler/kernels.py": KERNEL.format("3.0")})
    info = {"METADATA": "Metadata-Version: 2.1\nName: tripler\nVersion: 0.1\n"}
    info["entry_points.txt"] = "[mergec.primitives]\ntriple_it = tripler:TRIPLE\n"
    write(tmp_path / "site/tripler-0.1.dist-info", info)
    for k, name in enumerate("ab"):
        random = torch.Generator().manual_seed(k)
        tensors = {name: torch.randn(shape, generator=random) for name, (_, shape) in SHAPES.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "r.mrg").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def fresh_import(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the package as a new process would find it."""

    def forget() -> None:
        for name in ("tripler", "tripler.kernels"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(folder / "site")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()
    return forget


def test_an_edited_kernel_is_noticed_everywhere(folder: Path) -> None:
    """The command line, from the edit to the verified output."""
    path = os.pathsep.join([str(folder / "site"), *sys.path])
    env = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    assert command("r.mrg", "-o", "out", "--device", "cpu", folder=folder, env=env).returncode == 0
    write(folder / "site", {"tripler/kernels.py": KERNEL.format("5.0")})
    verified = command("verify", "out", folder=folder, env=env)
    assert verified.returncode == 3
    said = verified.stdout.decode() + verified.stderr.decode()
    assert "E0663" in said
    assert "the code of `tripler.kernels:triple_it` of tripler 0.1 has changed since the output was made" in said
    again = command("r.mrg", "-o", "out", "--device", "cpu", "--force", folder=folder, env=env)
    assert again.returncode == 0
    told = (again.stdout + again.stderr).decode()
    assert "taking over 2 of 3 tensors" in told
    assert "code that has changed: the code of `tripler.kernels:triple_it` of tripler 0.1" in told
    torch.testing.assert_close(
        load_file(folder / "out/model.safetensors")["x.weight"], 5 * load_file(folder / "a.safetensors")["x.weight"]
    )
    assert command("verify", "out", folder=folder, env=env).returncode == 0


def compiled(folder: Path) -> mergec.Compiled:
    return mergec.compile(folder / "r.mrg", device="cpu")


def test_another_version_of_a_package(folder: Path, fresh_import: Callable[[], None]) -> None:
    compiled(folder).run(folder / "out")
    shutil.move(folder / "site/tripler-0.1.dist-info", folder / "site/tripler-0.2.dist-info")
    metadata = "Metadata-Version: 2.1\nName: tripler\nVersion: 0.2\n"
    write(folder / "site/tripler-0.2.dist-info", {"METADATA": metadata})
    fresh_import()
    (found,) = mergec.verify(folder / "out", folder=folder).diagnostics
    assert found.code == "E0663"
    assert "of tripler 0.2 has changed" in found.message
    assert found.notes == ("it was of tripler 0.1 then",)
    assert compiled(folder).run(folder / "out", force=True).reused == 2


class Stop(Exception):
    pass


class Stopping:
    """Stops the run once two tensors are made."""

    def __init__(self) -> None:
        self.left = 2
        self.notices: tuple[str, ...] = ()

    def begins(self, plan: Any, notices: Any) -> None:  # noqa: ARG002
        self.notices = tuple(notices)

    def tensor(self, index: int) -> None:  # noqa: ARG002
        self.left -= 1
        if not self.left:
            raise Stop

    def moved(self, read: int, written: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...


def test_a_stopped_run_does_not_go_on_with_another_kernel(folder: Path, fresh_import: Callable[[], None]) -> None:
    with pytest.raises(Stop):
        compiled(folder).run(folder / "out", progress=Stopping())
    write(folder / "site", {"tripler/kernels.py": KERNEL.format("5.0")})
    fresh_import()
    progress = Stopping()
    progress.left = 99
    report = compiled(folder).run(folder / "out", progress=progress)
    assert report.resumed == 0
    why = "the code of `tripler.kernels:triple_it` of tripler 0.1 has changed since"
    assert progress.notices == (f"starting over, not from where an earlier run was stopped: {why}",)
    made = load_file(folder / "out/model.safetensors")
    torch.testing.assert_close(made["x.weight"], 5 * load_file(folder / "a.safetensors")["x.weight"])


def test_a_kernel_that_is_edited_after_its_import(folder: Path, fresh_import: Callable[[], None]) -> None:
    """In this process it does what it did, so that is what counts; a new process sees another."""
    with pytest.raises(Stop):
        compiled(folder).run(folder / "out", progress=Stopping())
    write(folder / "site", {"tripler/kernels.py": KERNEL.format("5.0")})
    compiled(folder).run(folder / "out")
    made = load_file(folder / "out/model.safetensors")
    torch.testing.assert_close(made["x.weight"], 3 * load_file(folder / "a.safetensors")["x.weight"])
    fresh_import()
    assert [d.code for d in mergec.verify(folder / "out", folder=folder).diagnostics] == ["E0663"]


def test_a_plan_for_other_code_is_not_run(folder: Path, fresh_import: Callable[[], None]) -> None:
    text = to_json(compiled(folder).plan)
    assert mergec.run(from_json(text), folder / "first").path
    write(folder / "site", {"tripler/kernels.py": KERNEL.format("5.0")})
    fresh_import()
    with pytest.raises(mergec.MergecError, match="E0662"):
        mergec.run(from_json(text), folder / "out")
    assert not (folder / "out").exists()
    data = json.loads(text)
    data["made_by"][0]["digest"] = "of another mergec"
    with pytest.raises(mergec.MergecError, match="E0662: mergec's own code has changed"):
        mergec.run(from_json(json.dumps(data)), folder / "out")


@pytest.mark.usefixtures("fresh_import")
def test_a_kernel_that_is_edited_during_the_run(folder: Path) -> None:
    compilation = compiled(folder)

    class Editing(Stopping):
        def begins(self, plan: Any, notices: Any) -> None:  # noqa: ARG002
            write(folder / "site", {"tripler/kernels.py": KERNEL.format("5.0")})

        def tensor(self, index: int) -> None: ...

    with pytest.raises(mergec.MergecError, match="E0662"):
        compilation.run(folder / "out", progress=Editing())
    assert not list(folder.glob("*out*"))
    assert not list(folder.glob(".out*"))


def test_no_digest_is_made_where_no_key_is_needed(folder: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), *sys.path])}
    check = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from mergec.cli.main import main
assert main(["--check", sys.argv[1]]) == 0
assert not [p for p in opened if p.endswith(("tripler/kernels.py", "runtime/portable/elementwise.py"))], opened
"""
    done = subprocess.run([sys.executable, "-c", check, str(folder / "r.mrg")], env=env, cwd=folder, check=False)
    assert done.returncode == 0
