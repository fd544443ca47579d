"""Profiles against analytic counts, and traces as TensorBoard's own plugin reads them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from zoo.inference.profiling import mend_trace, profile_model, tensorboard_trace_handler, write_trace
from zoo_core.errors import InputError, SaveError

WIDTH, HEADS, LAYERS, EMBED = 32, 2, 2, 16
PATCH, IMAGE_SIZE = 8, (16, 24)
CONTEXT, VOCAB = 9, 50
SIZES: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "context_length": CONTEXT,
    "vocab_size": VOCAB,
    "device": "cpu",
}


class Block(nn.Module):
    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, WIDTH))
        return x + self.mlp(x)


class VisionTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(Block(causal=False) for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, EMBED)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(image).flatten(2).mT).mean(dim=1))


class TextTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.Sequential(*(Block(causal=True) for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, EMBED)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(ids))[:, -1])


class DualEncoder(nn.Module):
    def __init__(self, visual: nn.Module | None, text: nn.Module | None = None) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.logit_scale = nn.Parameter(torch.zeros(()))


class Calling(nn.Module):
    """A tower without parameters that does what it is given."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def transformer_macs(tokens: int) -> int:
    """12 N W^2 for the six matrices of a layer, 2 N^2 W for the two products of attention."""
    return LAYERS * (12 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH)


# What is counted.


def test_macs_equal_the_analytic_count_with_both_products_of_attention() -> None:
    found = profile_model(DualEncoder(VisionTower(), TextTower()), **SIZES, batch_size=3, steps=1).towers
    patches = IMAGE_SIZE[0] // PATCH * (IMAGE_SIZE[1] // PATCH)
    embedding = patches * WIDTH * 3 * PATCH**2
    assert found["image"].macs == embedding + transformer_macs(patches) + WIDTH * EMBED
    assert found["text"].macs == transformer_macs(CONTEXT) + WIDTH * EMBED
    assert found["image"].flops == 2 * found["image"].macs


def test_the_fast_path_of_torchs_own_encoder_layer_is_counted_too() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True)
    text = nn.Sequential(nn.Embedding(VOCAB, WIDTH), *(layer for _ in range(LAYERS)))
    assert profile_model(DualEncoder(None, text), **SIZES, steps=1).towers["text"].macs == transformer_macs(CONTEXT)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.slow
def test_a_published_model_costs_what_the_peer_published_for_it() -> None:
    import open_clip

    peer: Any = open_clip.create_model("ViT-B-32")
    sizes = {"image_size": (224, 224), "context_length": 77, "vocab_size": 49408}
    model = DualEncoder(peer.visual, Calling(peer.encode_text))
    towers = profile_model(model, **SIZES | sizes, batch_size=1, steps=1).towers
    # docs/model_profile.csv of open_clip 3.3.0: image_gflops, text_gflops, image_mparams
    assert (round(towers["image"].flops / 1e9, 2), round(towers["text"].flops / 1e9, 2)) == (8.82, 5.96)
    assert round(towers["image"].parameters / 1e6, 2) == 87.85


def test_parameters_count_shared_ones_once_and_the_logit_scale_in_the_model_only() -> None:
    visual = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).bfloat16()
    visual[1].weight = visual[0].weight
    found = profile_model(DualEncoder(visual), **SIZES | {"image_size": (4, 4)}, steps=1)
    tower = found.towers["image"]
    assert (tower.parameters, tower.parameter_bytes, tower.dtype) == (16, 32, "bfloat16")
    assert (found.parameters, found.parameter_bytes) == (17, 36)


@pytest.mark.parametrize(
    ("run", "buffers"),
    [
        (lambda x: (x + 1).mul_(2), 1),
        (lambda x: (x + 1) * 2, 2),
        (lambda x: (((x + 1) * 2) - 3) / 4, 2),
        (lambda x: torch.stack([x + 1, x * 2]), 4),
        (lambda x: x.view(-1), 0),
    ],
)
def test_peak_memory_is_that_of_the_buffers_alive_together(run: Callable[[Tensor], Tensor], buffers: int) -> None:
    tower = profile_model(DualEncoder(Calling(run)), **SIZES, batch_size=4, steps=1).towers["image"]
    one = 4 * 3 * IMAGE_SIZE[0] * IMAGE_SIZE[1] * 4
    assert one * buffers <= tower.peak_activation_bytes <= one * buffers + 256


def test_latency_leaves_the_first_batch_out() -> None:
    seconds = iter([0.3])

    def cold_start(x: Tensor) -> Tensor:
        time.sleep(0.01 if len(x) == 1 else next(seconds, 0.01))
        return x

    tower = profile_model(DualEncoder(Calling(cold_start)), **SIZES, batch_size=2, steps=1).towers["image"]
    assert 0.01 <= tower.latency < 0.2
    assert tower.samples_per_second == 2 / tower.latency


def test_latency_is_the_median_so_that_one_slow_batch_changes_nothing() -> None:
    calls: list[None] = []

    def slow_every_third_time(x: Tensor) -> Tensor:
        calls.append(None)
        time.sleep(0.4 if len(calls) % 3 == 0 else 0.01)
        return x

    tower = profile_model(DualEncoder(Calling(slow_every_third_time)), **SIZES, steps=3).towers["image"]
    assert 0.01 <= tower.latency < 0.1


# How a model is run.


def test_towers_get_batches_of_the_asked_shape_in_their_dtype() -> None:
    seen: dict[tuple[int, ...], Tensor] = {}

    def look(x: Tensor) -> Tensor:
        seen[tuple(x.shape)] = x
        return x

    visual = nn.Sequential(Calling(look), nn.Conv2d(3, 1, 1).bfloat16())
    profile_model(DualEncoder(visual, Calling(look)), **SIZES, batch_size=5, steps=1)
    images, ids = seen[5, 3, *IMAGE_SIZE], seen[5, CONTEXT]
    assert images.dtype == torch.bfloat16
    assert ids.dtype == torch.int64 and ids.min() >= 0 and ids.max() < VOCAB
    assert (ids[:, -1] == VOCAB - 1).all()


def test_a_model_is_profiled_in_eval_mode_without_gradients_and_left_as_it_was() -> None:
    class Watching(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.training and not torch.is_grad_enabled()
            return x

    model = DualEncoder(nn.Sequential(Watching(), nn.Conv2d(3, 1, 1)), Watching().eval()).train()
    assert model.text is not None
    model.text.eval()
    profile_model(model, **SIZES, steps=1)
    assert [m.training for m in model.modules()] == [True, True, True, True, False]


def test_what_a_tower_caches_while_it_is_profiled_still_serves_in_training() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.cached: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.cached is None:
                self.cached = torch.ones(x.shape[-1])
            return x * (self.scale * self.cached)

    tower = Caching()
    profile_model(DualEncoder(tower), **SIZES, steps=1)
    tower(torch.ones(2, 3, *IMAGE_SIZE)).sum().backward()
    assert tower.scale.grad is not None


def test_a_tower_that_the_model_lacks_is_absent() -> None:
    assert list(profile_model(DualEncoder(None, TextTower()), **SIZES, steps=1).towers) == ["text"]


def test_a_profile_says_what_it_was_measured_on_and_is_json() -> None:
    found = profile_model(DualEncoder(VisionTower()), **SIZES, batch_size=2, steps=2).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["hardware"]["cpu"]
    assert {k: v for k, v in found["hardware"].items() if k != "cpu"} == {
        "device": "cpu",
        "gpu": None,
        "threads": 1,
        "torch": torch.__version__,
    }
    assert (found["steps"], found["trace"]) == (2, None)
    image = found["towers"]["image"]
    assert (image["input_shape"], image["flops"]) == ([2, 3, *IMAGE_SIZE], 2 * image["macs"])
    assert image["samples_per_second"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size: found 0, profiling needs at least 1"),
        ({"steps": -1}, "steps: found -1, profiling needs at least 1"),
        ({"image_size": (0, 16)}, "image height: found 0, profiling needs at least 1"),
        ({"image_size": (16, 0)}, "image width: found 0, profiling needs at least 1"),
        ({"context_length": 0}, "context_length: found 0, profiling needs at least 1"),
        ({"vocab_size": 0}, "vocab_size: found 0, profiling needs at least 1"),
        (
            {"device": "cuda"},
            "device: found 'cuda' but the text tower is on 'cpu'; call model.to('cuda') first",
        ),
        ({"device": "meta"}, "device: found 'meta', memory is measured on cpu and cuda only"),
    ],
)
def test_what_cannot_be_profiled_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        profile_model(DualEncoder(None, TextTower()), **SIZES | change)
    assert str(caught.value) == message


def test_a_model_without_towers_is_refused() -> None:
    with pytest.raises(InputError, match="Linear has no tower to profile, neither `visual` nor `text`"):
        profile_model(nn.Linear(2, 2), **SIZES)


# Traces, as the plugin reads them.

# In a process of its own: the plugin's loader starts processes, which import the main module again.
READER = """
import json, sys
from torch_tb_profiler.io.cache import Cache
from torch_tb_profiler.profiler.loader import RunLoader

def read(worker):
    (step,) = worker.overview["performance"]
    return {
        "steps": [row[0] for row in worker.overview["steps"]["rows"]],
        "step time": step["value"],
        "costs": {child["name"]: child["value"] for child in step["children"]},
        "operators": {row["name"]: row["calls"] for row in worker.operation_table_by_name["data"]},
        "stacks": {
            name: [row["call_stack"] for row in table["data"]]
            for name, table in worker.operation_stack_by_name.items()
        },
    }

if __name__ == "__main__":
    run = RunLoader("run", sys.argv[1], Cache()).load()
    print(json.dumps({worker.worker: read(worker) for worker in run.profiles.values()}))
"""


class ExportedBefore:
    """Stands in for a profiler: torch exports a trace only once."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def export_chrome_trace(self, path: str) -> None:
        shutil.copyfile(self.trace, path)


def train_under(handler: Callable[[profile], None]) -> None:
    """Two recorded steps over a data loader whose items take a while."""

    def slow_item(index: int) -> Tensor:
        time.sleep(0.002)
        return torch.full((4,), float(index))

    class Items(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Tensor:
            return slow_item(index)

    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=0, warmup=1, active=2, repeat=1),
        on_trace_ready=handler,
        with_stack=True,
    ) as profiler:
        for batch in torch.utils.data.DataLoader(Items()):
            with record_function("double the batch"):
                batch.mul_(2)
            profiler.step()


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A training loop's trace as torch writes it and mended, and a model's: three workers of one run."""
    logs = tmp_path_factory.mktemp("logs")
    train_under(torch.profiler.tensorboard_trace_handler(str(logs), "unmended"))
    (unmended,) = logs.iterdir()
    stand_in: Any = ExportedBefore(unmended)
    tensorboard_trace_handler(logs, "mended.rank.0")(stand_in)
    model = DualEncoder(VisionTower(), TextTower())
    found = profile_model(model, **SIZES, steps=2, trace_dir=logs, worker_name="model")
    assert found.trace is not None and found.trace.parent == logs
    assert found.to_dict()["trace"] == str(found.trace)
    script = tmp_path_factory.mktemp("reader") / "reader.py"
    script.write_text(READER)
    command = [sys.executable, str(script), str(logs)]
    # Forked, the plugin's processes need not import pandas once more each.
    env = os.environ | ({"TORCH_PROFILER_START_METHOD": "fork"} if hasattr(os, "fork") else {})
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def test_a_models_trace_shows_its_towers_as_operators(traces: dict[str, Any]) -> None:
    operators = traces["model"]["operators"]
    assert (operators["image tower"], operators["text tower"]) == (2, 2)
    assert operators["aten::conv2d"] == 2


def test_a_models_trace_has_the_steps_that_were_recorded_and_their_time(traces: dict[str, Any]) -> None:
    assert traces["model"]["steps"] == ["1", "2"]
    assert traces["model"]["step time"] > 0


def test_a_models_operators_name_the_code_that_called_them_innermost_first(traces: dict[str, Any]) -> None:
    (stack,) = traces["model"]["stacks"]["aten::conv2d"]
    frames = stack.split(";")
    parts = ("Conv2d", "VisionTower", "write_trace", "profile_model")
    places = [next(i for i, frame in enumerate(frames) if part in frame) for part in parts]
    assert places == sorted(places)


def test_spans_and_data_loading_come_back_in_a_mended_trace(traces: dict[str, Any]) -> None:
    before, after = traces["unmended"], traces["mended.rank.0"]
    assert "double the batch" not in before["operators"] and before["costs"]["DataLoader"] == 0
    assert after["operators"]["double the batch"] == 2 and after["costs"]["DataLoader"] >= 2000
    assert before["operators"].items() <= after["operators"].items()


def test_call_stacks_come_back_in_a_mended_trace(traces: dict[str, Any]) -> None:
    assert traces["unmended"]["stacks"] == {}
    (stack,) = traces["mended.rank.0"]["stacks"]["aten::mul_"]
    assert "train_under" in stack


# Traces, event by event.


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur}


def test_mending_leaves_steps_and_device_spans_alone() -> None:
    events = [
        event("user_annotation", "ProfilerStep#1", 0, 10),
        event("user_annotation", "mine", 1, 2),
        event("gpu_user_annotation", "mine", 1, 2),
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0},
    ]
    mend_trace({"traceEvents": events})
    assert [e.get("cat") for e in events] == ["user_annotation", "cpu_op", "gpu_user_annotation", None]


def test_a_stack_holds_exactly_the_functions_around_an_operator_in_its_thread() -> None:
    inside = event("cpu_op", "inside", 2, 1)
    # 0.1 + 0.2 > 0.3 in floats, yet the frame has ended when the operator begins.
    after = event("cpu_op", "after", 0.3, 0.1, tid=3)
    together = event("cpu_op", "together", 200, 5)
    shorter = event("cpu_op", "shorter", 200, 3)
    elsewhere = event("cpu_op", "elsewhere", 2, 1, tid=2)
    outside = event("cpu_op", "outside", 500, 1)
    frames = [
        event("python_function", "main", 0, 300),
        event("python_function", "inner", 1, 9),
        event("python_function", "ended", 0.1, 0.2, tid=3),
        event("python_function", "equal", 200, 5),
    ]
    mend_trace({"traceEvents": [inside, after, shorter, together, elsewhere, outside, *frames]})
    found = [e.get("args", {}).get("Call stack") for e in (inside, after, together, shorter, elsewhere, outside)]
    assert found == ["inner;main", None, "equal;main", "equal;main", None, None]


# Files.


def test_a_trace_lands_in_a_folder_that_did_not_exist_under_the_workers_name(tmp_path: Path) -> None:
    path = write_trace({"add": lambda: torch.ones(2) + 1}, tmp_path / "a" / "b", steps=1, worker_name="me")
    assert list((tmp_path / "a" / "b").iterdir()) == [path]
    worker, nanoseconds, rest = path.name.split(".", 2)
    assert (worker, nanoseconds.isdigit(), rest) == ("me", True, "pt.trace.json.gz")
    assert json.loads(gzip.decompress(path.read_bytes()))["traceName"] == path.name


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "logs"
    calls = [
        lambda: tensorboard_trace_handler(folder),
        lambda: write_trace({"never": lambda: pytest.fail("ran")}, folder),
    ]
    for call in calls:
        with pytest.raises(SaveError) as caught:
            call()
        assert str(caught.value) == (
            f"cannot write a trace into '{folder}': Not a directory; give a folder that can be written to"
        )


def test_a_trace_that_cannot_be_finished_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip, "compress", full)
    with pytest.raises(SaveError, match="No space left on device"):
        write_trace({"add": lambda: torch.ones(2) + 1}, tmp_path, steps=1)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_torch_cut_short_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"traceEvents": [')
    stand_in: Any = ExportedBefore(tmp_path / "cut.json")
    with pytest.raises(SaveError, match=r"cannot write a trace into '.*logs'"):
        tensorboard_trace_handler(tmp_path / "logs")(stand_in)
    assert list((tmp_path / "logs").iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "../up", "/"])
def test_a_worker_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        tensorboard_trace_handler(tmp_path, name)
    assert str(caught.value).startswith(f"worker_name: found {name!r}, ")


def test_a_trace_of_no_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="steps: found 0, a trace records at least 1 step"):
        write_trace({}, tmp_path, steps=0)


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ([], "a trace is a mapping with a list of 'traceEvents'"),
        ({}, "a trace is a mapping with a list of 'traceEvents'"),
        ({"traceEvents": {}}, "a trace is a mapping with a list of 'traceEvents'"),
        ({"traceEvents": [5]}, r"traceEvents\[0\]: expected a mapping, found 5"),
        ({"traceEvents": [{**event("cpu_op", "x", 0, 1), "ts": "0"}]}, r"traceEvents\[0\].ts: cannot be '0'"),
        ({"traceEvents": [{**event("cpu_op", "x", 0, 1), "dur": float("inf")}]}, r"\[0\].dur: cannot be inf"),
        ({"traceEvents": [{**event("cpu_op", "x", 0, 1), "tid": []}]}, r"\[0\].tid: cannot be \[\]"),
        ({"traceEvents": [{**event("user_annotation", "x", 0, 1), "name": None}]}, r"\[0\].name: cannot be None"),
        ({"traceEvents": [{**event("cpu_op", "x", 0, 1), "args": []}]}, r"\[0\].args: expected a mapping, found \[\]"),
    ],
)
def test_what_is_no_trace_is_told_with_its_event(trace: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mend_trace(trace)
