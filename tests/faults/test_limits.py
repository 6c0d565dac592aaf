"""Limits on open files and on memory, of the host and of a device: the run fits, or says what would
do."""

from __future__ import annotations

import json
import os
import re
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import make, mergec
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.grammar.source import Source
from mergec.runtime.api import compile
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.files import descriptors
from mergec.runtime.files.faults import file_fault
from mergec.runtime.machine import accelerator
from mergec.runtime.machine.accelerator import DeviceArena
from mergec.runtime.machine.host import Host
from mergec.runtime.machine.lanes import Lanes
from mergec.runtime.output import partial, target
from mergec.runtime.resume import keeper
from mergec.runtime.session.session import run_plan
from mergec.runtime.stream import batching
from safetensors.numpy import save_file
from standin import StandIn
from stopping import Stop

SHARDS = 200


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of 200 shards each."""
    folder = tmp_path_factory.mktemp("sharded")
    for model in ("base", "a", "b"):
        (folder / model).mkdir()
        listed = {}
        for shard in range(SHARDS):
            name, tensor = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors", f"model.layers.{shard}.mlp.up.weight"
            save_file({tensor: np.full((16, 8), shard + len(model), np.float32)}, folder / model / name)
            listed[tensor] = name
        (folder / model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    lets = "".join(f'let {m} = model("{m}")\n' for m in ("base", "a", "b")) + 'output(shard_size="512B")\n'
    (folder / "linear.mrg").write_text(lets + '"*" = linear(base, a, b)\n')
    (folder / "copy.mrg").write_text(lets + '"*" = base\n')
    return folder


@pytest.mark.parametrize(("recipe", "limit"), [("linear", 64), ("copy", 40)])
def test_200_shards_of_3_models_with_few_open_files(sharded: Path, tmp_path: Path, recipe: str, limit: int) -> None:
    done = mergec(
        f"{recipe}.mrg",
        *("-q", "-o", tmp_path / "out", "--lanes", "2"),
        folder=sharded,
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    made = sorted(n for n in os.listdir(tmp_path / "out") if n.endswith(".safetensors"))
    assert len(made) == SHARDS
    last = (tmp_path / "out" / made[-1]).read_bytes()
    wanted = SHARDS - 1 + (4 if recipe == "copy" else 2)
    assert np.array_equal(np.frombuffer(last[-512:], np.float32), np.full(128, wanted, np.float32))


def test_too_few_open_files_are_known_before_the_start(sharded: Path, tmp_path: Path) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (26, 26))

    done = mergec("copy.mrg", "-q", "-o", tmp_path / "out", "--lanes", "8", folder=sharded, before=lower)
    assert done.returncode == 4
    assert re.search(rb"error\[E0643\]: the system allows 26 open files, and the run needs \d+\n", done.stderr)
    assert b"= help: allow more: `ulimit -n 256`" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [5, 6, 7])
def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, limit: int) -> None:
    make(tmp_path)
    before = sorted(os.listdir(tmp_path))
    done = mergec("copy.mrg", "-o", "out", folder=tmp_path, before=lambda: _allow(limit))
    assert done.returncode == 4, done.stderr
    assert re.match(rb"error\[E06(10|43)\]: ", done.stderr)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("limit", [5, 6, 7])
def test_what_an_earlier_run_has_left_outlives_one_that_cannot_begin(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    compiled, cancel = compile(tmp_path / "linear.mrg", device="cpu", lanes=1), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(batching, "SMALL", 0)
        with pytest.raises(Cancelled):
            compiled.run("out", progress=Stop(1, cancel), cancel=cancel)
    left = _contents(tmp_path / ".out.partial")
    done = mergec("linear.mrg", "-o", "out", folder=tmp_path, before=lambda: _allow(limit))
    assert done.returncode == 4, done.stderr
    assert b".out.partial`" in done.stderr.split(b"= help", 1)[1]
    assert _contents(tmp_path / ".out.partial") == left
    assert compile(tmp_path / "linear.mrg", device="cpu").run("out").resumed == 1


def test_a_folder_that_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile(make(tmp_path) / "copy.mrg", device="cpu")

    def no_space(path: str, *_: object) -> None:
        raise file_fault("E0604", "no space", path)

    def refused(path: str) -> None:
        raise PermissionError(f"not {path}")

    monkeypatch.setattr(target, "check_space", no_space)
    monkeypatch.setattr(partial, "remove", refused)
    with pytest.raises(MergecError) as caught:
        compiled.run(tmp_path / "out")
    assert caught.value.diagnostics[0].help == (
        f"`{tmp_path}/.out.partial` could not be removed, and holds nothing of use",
    )


def _allow(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_room_for_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_in_use", lambda: 10)
    for limit, expected in ((1 << 20, 64), (180, 50), (resource.RLIM_INFINITY, 64)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert descriptors.room(4) == expected


# --- memory --------------------------------------------------------------------------------------


RECIPES = {
    "linear": "linear(a, b)",
    "ties": "ties(a, b, base=a, density=0.4)",
    "slerp": "slerp(a, b, t=0.4)",
    "svd": "truncate_rank(a - b, rank=4)",
}


def _large(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "ab":
        save_file({"x.weight": rng.standard_normal((1500, 1000)).astype(np.float32)}, folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("method", RECIPES)
def test_the_smallest_budget_is_the_smallest(tmp_path: Path, method: str, device: str) -> None:
    """The figure of E0317 works, and one MiB less does not."""
    folder = _large(tmp_path)
    text = (
        f'let a = model("{folder}/a.safetensors")\nlet b = model("{folder}/b.safetensors")\n"*" = {RECIPES[method]}\n'
    )
    option = "host_memory" if device == "cpu" else "device_memory"

    def peak(budget: int) -> int:
        options = Options(device=device, lanes=4, **{option: budget})
        plan = compile_recipe(Source("<recipe>", text), LocalCatalog(), "0", options).plan
        return plan.peak_host if device == "cpu" else plan.peak_device

    with pytest.raises(MergecError) as caught:
        peak(1)
    (found,) = caught.value.diagnostics
    (note,) = found.notes
    figure = re.fullmatch(r"the smallest that works is (\d+) MiB, with one lane and the smallest blocks", note)
    assert figure is not None
    smallest = int(figure[1]) << 20
    assert smallest - (1 << 20) < peak(smallest) <= smallest
    with pytest.raises(MergecError, match="E0317"):
        peak(smallest - (1 << 20))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: …"),
        RuntimeError("can't start new thread"),
    ],
)
def test_no_memory_in_mid_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    compiled = compile(make(tmp_path) / "linear.mrg", device="cpu")

    def none_left(*_: object) -> None:
        raise error

    monkeypatch.setattr(Host, "arena", none_left)
    with pytest.raises(MergecError) as caught:
        compiled.run(tmp_path / "out")
    found = caught.value.diagnostics[0]
    assert (found.code, found.message, caught.value.exit) == ("E0003", "out of memory", Exit.RUN)
    assert found.notes[0].startswith("the plan needs 2 MiB")
    assert found.help[0] == "`--memory 1MiB` for smaller blocks"
    assert not (tmp_path / "out").exists()


def test_other_faults_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("a tensor is upside down")

    monkeypatch.setattr(Host, "arena", bug)
    with pytest.raises(RuntimeError, match="upside down"):
        compile(make(tmp_path) / "linear.mrg", device="cpu").run(tmp_path / "out")


def test_limit_on_the_address_space(tmp_path: Path) -> None:
    """Too low even for the libraries, and too low for the blocks."""
    make(_large(tmp_path), big='let a = model("a.safetensors")\n"*" = truncate_rank(a, rank=4)\n')
    _large(tmp_path)
    limited = "import resource; limit = {0}; resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
    main = "from mergec.cli.main import main; sys.exit(main())"
    done = mergec("big.mrg", "-o", "out", folder=tmp_path, start=limited.format(350 << 20) + main)
    assert (done.returncode, done.stderr[:12]) in ((4, b"error[E0642]"), (4, b"error[E0003]")), done.stderr
    loaded = "import torch, mergec.runtime.execute.engine\n"
    used = "next(int(l.split()[1]) * 1024 for l in open('/proc/self/status') if l.startswith('VmSize'))"
    start = loaded + limited.format(f"{used} + (12 << 20)") + main
    done = mergec("big.mrg", "-o", "out", "--lanes", "1", folder=tmp_path, start=start)
    assert (done.returncode, done.stderr[:12]) == (4, b"error[E0003]"), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_thread_that_cannot_start_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", no_thread)
    with pytest.raises(RuntimeError, match="can't start"), Lanes(3) as lanes:
        lanes.spread(100, lambda _, item: done.append(item))
    assert len(done) < 100


# --- a device ------------------------------------------------------------------------------------


class _Small(StandIn):
    """A device of which there is next to nothing."""

    def arena(self, nbytes: int, staging: int) -> DeviceArena:
        if nbytes > 2 << 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …")
        return super().arena(nbytes, staging)

    def free(self) -> int | None:
        return 5 << 20


def test_no_memory_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "Accelerator", _Small)
    make(tmp_path)
    _large(tmp_path)
    plan = compile(tmp_path / "linear.mrg", device="cuda:0", lanes=1).plan
    with pytest.raises(MergecError) as caught:
        run_plan(plan, tmp_path / "out")
    found = caught.value.diagnostics[0]
    assert (found.code, caught.value.exit) == ("E0644", Exit.RUN)
    assert found.message == "out of memory on the device `cuda:0`"
    assert found.notes == (f"the plan needs {-(-plan.peak_device // (1 << 20))} MiB there, and 5 MiB are free for it",)
    budget = re.fullmatch(r"`--device-memory (\d+)MiB` for smaller blocks", found.help[0])
    assert budget is not None
    assert not (tmp_path / "out").exists()
    plan = compile(tmp_path / "linear.mrg", device="cuda:0", lanes=1, device_memory=int(budget[1]) << 20).plan
    run_plan(plan, tmp_path / "out")


def test_no_device(tmp_path: Path) -> None:
    """One more than there are, and far more."""
    names = [f"cuda:{torch.cuda.device_count()}", "cuda:77"]
    if not torch.backends.mps.is_available():
        names.append("mps")
    for name in names:
        with pytest.raises(MergecError, match=f"E0613: no device `{name}`") as caught:
            compile(make(tmp_path) / "linear.mrg", device=name).run(tmp_path / "out")
        assert caught.value.exit == Exit.RUN
        assert caught.value.diagnostics[0].help[0] == "`--device cpu`"
        assert not (tmp_path / "out").exists()
