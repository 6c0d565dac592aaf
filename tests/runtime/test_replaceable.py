"""What `--force` replaces, and all that it leaves alone."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.plan.plan import Plan
from mergec.grammar.diagnostic import Diagnostic, Exit, MergecError
from mergec.runtime.output import replaceable, swap
from mergec.runtime.output.target import Target
from mergec.runtime.output.writer import Writer
from safetensors.torch import save_file
from tiny_plan import MADE, PLAN, START, WEIGHTS, make, tree

SINGLE = dataclasses.replace(PLAN, single=True, documents=())


@pytest.fixture(params=["exchange", "two renames"])
def both_swaps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the file system's swap of two paths, and without."""
    if request.param == "two renames":
        monkeypatch.setattr(swap, "exchange", lambda *_: False)


def everything(folder: Path) -> dict[str, object]:
    """All that is below a folder, with what kind of thing it is; links are not followed."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        held = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path.relative_to(folder))] = (status.st_mode, held, os.readlink(path) if path.is_symlink() else None)
    return found


def refusal(path: Path, plan: Plan = PLAN, *, force: bool = True) -> Diagnostic:
    """What is said of a target that is not replaced. It, and all that is beside it, is as it
    was."""
    before = everything(path.parent)
    with pytest.raises(MergecError) as caught:
        make(path, plan, force=force)
    assert everything(path.parent) == before
    found = caught.value.diagnostics[0]
    assert (found.code, caught.value.exit) == (("E0608", Exit.USAGE) if force else ("E0601", Exit.RUN))
    assert not any("--force" in line for line in found.help)
    return found


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


# --- what is no output ---------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("years of work")


def _weights(path: Path) -> None:
    path.write_bytes(WEIGHTS)


def _linked_weights(path: Path) -> None:
    (path.parent / "elsewhere.safetensors").write_bytes(WEIGHTS)
    path.symlink_to("elsewhere.safetensors")


def _linked_checkpoint(path: Path) -> None:
    path.symlink_to(checkpoint(path.parent / "elsewhere").name)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    except OSError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("name", ["tokenizer_backup.zip", "vocab_notes.md", "tokenizer-training.txt", "vocabulary"])
def test_what_is_only_named_like_a_tokenizer_stays(name: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "out").joinpath(name).write_text("years of work")
    assert f"`{name}`" in refusal(tmp_path / "out").message


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (_text, "it is a file, and the output is a folder"),
        (_weights, "it is a file, and the output is a folder"),
        (os.mkfifo, "it is a named pipe"),
        (_socket, "it is a socket"),
        (_device, "it is a device"),
        (_linked_weights, "it is a link, to `elsewhere.safetensors`"),
        (_linked_checkpoint, "it is a link, to `elsewhere`"),
        (_dangling, "it is a link, to `nowhere`"),
    ],
)
def test_only_a_folder_gives_way_to_a_folder(put: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    put(tmp_path / "out")
    assert refusal(tmp_path / "out").message == f"`{tmp_path}/out` is not replaced: {why}"
    assert refusal(tmp_path / "out", force=False).notes == (f"`--force` would not replace it: {why}",)


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (_text, "it is no safetensors file (header"),
        (Path.touch, "it is no safetensors file (file of 0 bytes"),
        (lambda path: path.write_bytes(WEIGHTS[:-1]), "it is no safetensors file (file is truncated"),
        (checkpoint, "it is a folder, and the output is one file"),
        (Path.mkdir, "it is a folder, and the output is one file"),
        (os.mkfifo, "it is a named pipe"),
        (_device, "it is a device"),
        (_linked_weights, "it is a link, to `elsewhere.safetensors`"),
        (_dangling, "it is a link, to `nowhere`"),
    ],
)
def test_only_weights_give_way_to_weights(put: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    put(tmp_path / "out.safetensors")
    assert f"is not replaced: {why}" in refusal(tmp_path / "out.safetensors", SINGLE).message
    refusal(tmp_path / "out.safetensors", SINGLE, force=False)


def test_weights_give_way_to_weights(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    save_file({"x": torch.ones(3)}, out)
    with pytest.raises(MergecError) as caught:
        make(out, SINGLE)
    assert caught.value.diagnostics[0].help == ("give another path, or replace it with `--force`",)
    make(out, SINGLE, force=True)
    assert tree(tmp_path) == {"out.safetensors": WEIGHTS}


# --- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strange",
    [
        "notes.txt",
        "checkpoint-500/optimizer.pt",
        "optimizer.pt",
        "optimizer.safetensors",
        "optimizer-00001-of-00002.safetensors",
        "training_args.bin",
        "trainer_state.json",
        "rng_state.pth",
        "pytorch_model.bin",
        "my-lora.safetensors",
        "adapter_model.safetensors",
        "model.gguf",
        "thesis.pdf",
        ".git/HEAD",
        "runs/",
        "additional_chat_templates/notes.txt",
        "additional_chat_templates/deep/tool.jinja",
        "1_Pooling/weights.txt",
    ],
)
def test_a_checkpoint_with_something_beside_it(strange: str, tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")
    path = out / strange
    path.parent.mkdir(parents=True, exist_ok=True)
    if strange.endswith("/"):
        path.mkdir()
    else:
        path.write_text("mine")
    found = refusal(out)
    top, _, below = strange.partition("/")
    told = strange if top in ("additional_chat_templates", "1_Pooling") else top + "/" * ("/" in strange)
    told = told.replace("deep/tool.jinja", "deep/")
    assert found.message.endswith(f"it holds what no checkpoint consists of: `{told}`"), below
    assert refusal(out, force=False).notes[0].endswith(f"`{told}`")


@pytest.mark.parametrize("to", ["../kept", "nowhere", "model.safetensors"])
def test_links_in_a_folder(to: str, tmp_path: Path) -> None:
    """As in a snapshot of the Hub's cache."""
    (tmp_path / "kept").write_text("kept")
    out = checkpoint(tmp_path / "out")
    (out / "tokenizer.json").symlink_to(to)
    assert refusal(out).message.endswith("`tokenizer.json`")


def test_pipes_in_a_folder(tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")
    for name in ("mergec.json", "README.md"):
        os.mkfifo(out / name)
    assert refusal(out).message.endswith("`README.md`, `mergec.json`")


def test_more_than_is_told(tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")
    for number in range(1234):
        (out / f"{number:04}.txt").touch()
    assert refusal(out).message.endswith("`0000.txt`, `0001.txt`, `0002.txt` and 1,231 more")


def test_papers_without_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("README.md", "LICENSE", "vocab.txt"):
        (out / name).write_text("mine")
    assert refusal(out).message.endswith("it holds no checkpoint")


@pytest.mark.parametrize("closed", ["out", "out/additional_chat_templates"])
def test_a_folder_that_nothing_may_be_taken_out_of(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = checkpoint(tmp_path / "out")
    (out / "additional_chat_templates").mkdir()
    allowed = os.access
    monkeypatch.setattr(
        replaceable.os, "access", lambda path, mode: path != str(tmp_path / closed) and allowed(path, mode)
    )
    assert refusal(out).message.endswith(f"it can't be removed: `{tmp_path / closed}` is not writable")


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = checkpoint(tmp_path / "out")
    (out / "additional_chat_templates").mkdir()
    for folder in (out, out / "additional_chat_templates"):
        monkeypatch.chdir(folder)
        assert refusal(out).message.endswith("it is the folder you are in, or holds it")


def test_a_folder_that_can_not_be_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = checkpoint(tmp_path / "out")
    listed = os.listdir

    def refused(path: str) -> list[str]:
        if str(path) == str(out):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(replaceable.os, "listdir", refused)
    with pytest.raises(MergecError, match="it can't be looked through: permission denied"):
        make(out, force=True)


@pytest.mark.parametrize(("mounted", "why"), [("out", "mounted there"), ("out/a b", "mounted at `{out}/a b` in it")])
def test_what_is_mounted(mounted: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = checkpoint(tmp_path / "out")
    table = tmp_path / "mountinfo"
    point = str(tmp_path / mounted).replace(" ", r"\040")
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/x rw\n23 22 0:5 / {point} rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(replaceable, "MOUNTS", str(table))
    assert refusal(out).message.endswith("something is " + why.format(out=out))


FILES = (
    *("config.json", "generation_config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
    *("preprocessor_config.json", "modeling_own.py", "README.md", "LICENSE", ".gitattributes", "1_Pooling/config.json"),
)


@pytest.mark.usefixtures("both_swaps")
@pytest.mark.parametrize("files", [(), ("config.json",), ("consolidated.00.safetensors",), FILES])
def test_what_gives_way(files: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in files:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("old")
    with pytest.raises(MergecError) as caught:
        make(out)
    assert caught.value.diagnostics[0].help == ("give another path, or replace it with `--force`",)
    make(out, force=True)
    assert tree(tmp_path) == {f"out/{name}": data for name, data in MADE.items()}


# --- outputs by their record ---------------------------------------------------------------------


@pytest.fixture
def merge(tmp_path: Path) -> Callable[..., mergec.Report]:
    """A merge whose output has files with names that no list holds."""
    model = tmp_path / "a"
    model.mkdir()
    save_file({"x.weight": torch.ones(4, 4)}, model / "model.safetensors")
    (model / "config.json").write_text('{"architectures": ["X"]}')
    (model / "odd.tables").write_text("goes along")

    def run(value: str = "a", **options: bool) -> mergec.Report:
        (tmp_path / "r.mrg").write_text(f'let a = model("a")\n* = {value}\n')
        return mergec.compile(tmp_path / "r.mrg").run(tmp_path / "out", **options)

    return run


def test_an_output_gives_way_by_its_record(merge: Callable[..., mergec.Report], tmp_path: Path) -> None:
    merge()
    assert (tmp_path / "out" / "odd.tables").read_text() == "goes along"
    merge("2*a", force=True)
    merge("2*a", force=True, fresh=True)
    assert (tmp_path / "out" / "odd.tables").exists()


@pytest.mark.parametrize("strange", ["notes.txt", "checkpoint-500/optimizer.pt"])
def test_what_was_put_into_an_output(strange: str, merge: Callable[..., mergec.Report], tmp_path: Path) -> None:
    merge()
    (tmp_path / "out" / strange).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / strange).write_text("mine")
    before = everything(tmp_path / "out")
    with pytest.raises(MergecError) as caught:
        merge("2*a", force=True)
    assert caught.value.diagnostics[0].code == "E0608"
    told = strange.partition("/")[0] + "/" * ("/" in strange)
    assert caught.value.diagnostics[0].message.endswith(f": `{told}`")
    assert everything(tmp_path / "out") == before
    # nothing is to be replaced where there is nothing to do
    assert merge(force=True).unchanged


def test_a_record_that_was_changed_says_nothing(merge: Callable[..., mergec.Report], tmp_path: Path) -> None:
    merge()
    record = tmp_path / "out" / "mergec.json"
    record.write_text(record.read_text().replace('"odd.tables"', '"odd.tables", "notes.txt"'))
    with pytest.raises(MergecError, match=r"`odd.tables`"):
        merge("2*a", force=True)


# --- what changes meanwhile ----------------------------------------------------------------------


def _made(out: Path, act: Callable[[], object], plan: Plan = PLAN, *, force: bool = True) -> None:
    """Runs the plan; `act` happens before its result is put in place."""
    with Target(str(out), plan, force=force) as target, Writer(target.folder, plan) as writer:
        writer.start()
        writer.write(0, START, memoryview(b"0123456789"))
        writer.finish()
        act()
        target.commit()


def _refused(out: Path, act: Callable[[], object], plan: Plan = PLAN, *, force: bool = True) -> Diagnostic:
    with pytest.raises(MergecError) as caught:
        _made(out, act, plan, force=force)
    assert not list(out.parent.glob(".*"))
    return caught.value.diagnostics[0]


@pytest.mark.usefixtures("both_swaps")
def test_what_is_put_into_the_target_meanwhile(tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")
    found = _refused(out, lambda: (out / "notes.txt").write_text("mine"))
    assert (found.code, found.message[-11:]) == ("E0608", "`notes.txt`")
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("both_swaps")
@pytest.mark.parametrize("single", [False, True])
def test_another_target_in_its_place_meanwhile(single: bool, tmp_path: Path) -> None:
    out, plan = (tmp_path / "out.safetensors", SINGLE) if single else (tmp_path / "out", PLAN)
    make(out, plan)
    make(tmp_path / "other", plan)
    first, second = (os.stat(path).st_ino for path in (out, tmp_path / "other"))

    def swapped() -> None:
        out.rename(tmp_path / "away")
        (tmp_path / "other").rename(out)

    found = _refused(out, swapped, plan)
    assert (found.code, "it has been put there while" in found.message) == ("E0608", True)
    assert [os.stat(path).st_ino for path in (tmp_path / "away", out)] == [first, second]


@pytest.mark.usefixtures("both_swaps")
def test_swapped_back_where_another_one_came_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put there between the last look and the swap."""
    out = checkpoint(tmp_path / "out")
    looks: Iterator[int] = iter(range(9))
    look = swap.look

    def late(path: str, *, single: bool) -> object:
        found = look(path, single=single)
        if next(looks) == 2:  # before the lock, behind it, and before the swap
            (out / "notes.txt").write_text("mine")
        return found

    monkeypatch.setattr(swap, "look", late)
    found = _refused(out, lambda: None)
    assert (found.code, found.message[-11:]) == ("E0608", "`notes.txt`")
    assert sorted(os.listdir(out)) == ["config.json", "model.safetensors", "notes.txt"]
    assert (out / "config.json").read_text() == "{}"


@pytest.mark.parametrize(("force", "code"), [(False, "E0601"), (True, "E0608")])
@pytest.mark.parametrize("single", [False, True])
def test_a_target_that_appears_meanwhile(force: bool, code: str, single: bool, tmp_path: Path) -> None:
    out, plan = (tmp_path / "out.safetensors", SINGLE) if single else (tmp_path / "out", PLAN)

    def act() -> None:
        make(tmp_path / "made", plan)
        (tmp_path / "made").rename(out)
        if single:
            out.write_bytes(WEIGHTS.replace(b"0123456789", b"9876543210"))

    before: dict[str, object] = {}
    found = _refused(out, lambda: (act(), before.update(everything(tmp_path))), plan, force=force)
    assert found.code == code
    assert everything(tmp_path)[out.name] == before[out.name]


@pytest.mark.usefixtures("both_swaps")
def test_a_target_that_goes_away_meanwhile(tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")
    _made(out, lambda: out.rename(tmp_path / "away"))
    assert tree(out) == MADE


# --- the place where a run works -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("thesis.txt", "it holds `thesis.txt`"),
        ("out/model.safetensors", "it holds `out`"),
        ("old/model.safetensors", "it holds `old`"),
        ("journal", "it holds `journal`"),
        ("lock", "`lock` in it is no lock"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_somebody_else(name: str, why: str, force: bool, tmp_path: Path) -> None:
    path = tmp_path / ".out.partial" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    if name == "old/model.safetensors":
        (tmp_path / "out").mkdir()
        force = True
    with pytest.raises(MergecError) as caught:
        make(tmp_path / "out", force=force)
    found = caught.value.diagnostics[0]
    assert (found.code, found.message) == (
        "E0616",
        f"`{tmp_path}/.out.partial`, where the output would be made, is none of mergec's: {why}",
    )
    assert tree(tmp_path / ".out.partial") == {name: b"mine"}
    # as the help says
    (tmp_path / ".out.partial").rename(tmp_path / "away")
    make(tmp_path / "out", force=force)
    assert tree(tmp_path / "out") == MADE


@pytest.mark.parametrize("lock", ["link", "pipe", "folder"])
def test_an_odd_lock(lock: str, tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (tmp_path / "kept").write_text("")
    make_it = {"link": lambda p: p.symlink_to("../kept"), "pipe": os.mkfifo, "folder": Path.mkdir}[lock]
    make_it(partial / "lock")
    with pytest.raises(MergecError, match="`lock` in it is no lock"):
        make(tmp_path / "out")


@pytest.mark.parametrize("to", ["folder", "nowhere", "file"])
def test_a_link_at_the_place_of_the_partial_folder(to: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "out").mkdir(parents=True)
    for name in ("lock", "journal", "out/model.safetensors"):
        (tmp_path / "folder" / name).touch()
    (tmp_path / ".out.partial").symlink_to(to)
    before = everything(tmp_path)
    with pytest.raises(MergecError, match="is none of mergec's: it is no folder"):
        make(tmp_path / "out")
    assert everything(tmp_path) == before


def test_links_in_the_partial_folder_are_not_followed(tmp_path: Path) -> None:
    partial, kept = tmp_path / ".out.partial", tmp_path / "kept"
    partial.mkdir()
    (partial / "lock").touch()
    (kept / "model.safetensors").parent.mkdir()
    (kept / "model.safetensors").write_text("kept")
    (partial / "out").symlink_to("../kept")
    (partial / "journal").symlink_to("../kept/model.safetensors")
    make(tmp_path / "out")
    assert tree(tmp_path / "out") == MADE
    assert tree(kept) == {"model.safetensors": b"kept"}


def test_an_old_output_whose_place_was_taken(tmp_path: Path) -> None:
    """Killed between two renames; then somebody puts something else there. Neither is lost."""
    partial, out = tmp_path / ".out.partial", checkpoint(tmp_path / "out")
    for part in ("old", "out"):
        (partial / part).mkdir(parents=True)
        (partial / part / "config.json").write_text(part)
    (partial / "lock").touch()
    for _ in range(2):
        with pytest.raises(MergecError) as caught:
            make(out, force=True)
        found = caught.value.diagnostics[0]
        assert (found.code, found.notes) == ("E0617", (f"`{partial}/old` is what that run was replacing",))
        assert (partial / "old" / "config.json").read_text() == "old"
        assert (out / "config.json").read_text() == "{}"
    # as the help says
    out.rename(tmp_path / "away")
    make(out, force=True)
    assert sorted(os.listdir(tmp_path)) == ["away", "out"]
