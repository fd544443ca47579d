"""Measurement of the towers' multiply-adds, latency and activation memory.

Multiply-adds are counted with fused kernels switched off. torch's counter knows operators one by one, and has
no entry for the fused attention of CPUs nor for the fast path of `nn.MultiheadAttention`: it counts 0 for the
one and for the whole layer of the other, silently. Latency and memory are measured with the kernels that
would run.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from zoo.inference.profiling.report import Hardware, ModelProfile, TowerProfile
from zoo.inference.profiling.traces import write_trace
from zoo_core.errors import InputError
from zoo_core.nn.eval_mode import evaluating

__all__ = ["profile_model", "profile_towers"]


def profile_model(
    model: nn.Module,
    *,
    image_size: tuple[int, int],
    context_length: int,
    vocab_size: int,
    batch_size: int = 8,
    steps: int = 5,
    device: str | torch.device,
    trace_dir: Path | None = None,
    worker_name: str | None = None,
) -> ModelProfile:
    """Measure the towers `model.visual` and `model.text` (either may be None) on random input, in eval mode.

    Memory is what torch's allocator hands out: on CUDA by `torch.cuda.max_memory_allocated`, on a CPU by the
    profiler's record of every allocation and release. What a library takes from the system by itself is in
    neither. Multiply-adds inside kernels that torch's counter does not know (an extension's own attention)
    are missing.

    Args:
        model: on `device`; its mode is as before afterwards.
        image_size: height and width in pixels, for images `[B, 3, H, W]`.
        context_length: L of the ids `[B, L]`, int64.
        vocab_size: ids are below it. The last id of a text is the `eos_id` of the tower, or `vocab_size - 1` where it
            has none: there CLIP's vocabulary has its end of text.
        batch_size: B of latency and memory.
        steps: batches that are timed, after one that is not; also the steps of the trace.
        device: a CPU or a CUDA device.
        trace_dir: where to write a trace of both towers for TensorBoard; none is written without.
        worker_name: names the trace; see `write_trace`.

    Raises:
        InputError: a size or count below 1, a device that is not the model's or not one of these two, a
            `worker_name` that is no file name, or a model without towers.
        SaveError: the trace cannot be written.
    """
    sizes = {"image height": image_size[0], "image width": image_size[1], "context_length": context_length}
    _check_positive(sizes | {"vocab_size": vocab_size, "batch_size": batch_size, "steps": steps})
    device = torch.device(device)
    towers = _image_and_text_towers(model)
    _check_device(towers, device)
    batches: dict[str, Tensor] = {}
    if "image" in towers:
        shape = batch_size, 3, *image_size
        batches["image"] = torch.rand(shape, device=device, dtype=_dtype(towers["image"]))
    if "text" in towers:
        batches["text"] = torch.randint(vocab_size, (batch_size, context_length), device=device)
        eos_id = getattr(towers["text"], "eos_id", None)
        batches["text"][:, -1] = vocab_size - 1 if eos_id is None else eos_id
    return profile_towers(
        model, towers, batches, steps=steps, device=device, trace_dir=trace_dir, worker_name=worker_name
    )


def profile_towers(
    model: nn.Module,
    towers: Mapping[str, nn.Module],
    batches: Mapping[str, Tensor],
    *,
    steps: int = 5,
    device: str | torch.device,
    trace_dir: Path | None = None,
    worker_name: str | None = None,
) -> ModelProfile:
    """Measure towers of a model, each on a batch of its modality; the rest is as in `profile_model`."""
    device = torch.device(device)
    _check_positive({"steps": steps} | {f"batch of {name}": len(batch) for name, batch in batches.items()})
    _check_device(towers, device)
    # no inference_mode: what a tower caches in its first forward would be unfit for training ever after
    with evaluating(model), torch.no_grad():
        trace = None
        if trace_dir is not None:
            spans = {f"{name} tower": partial(tower, batches[name]) for name, tower in towers.items()}
            trace = write_trace(spans, trace_dir, steps=steps, worker_name=worker_name)
        profiles = {name: _profile_tower(tower, batches[name], steps) for name, tower in towers.items()}
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    hardware = Hardware(str(device), _cpu_name(), gpu, torch.get_num_threads(), torch.__version__)
    return ModelProfile(*_parameters(model), profiles, steps, hardware, trace)


def _check_positive(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name}: found {count}, profiling needs at least 1")


def _image_and_text_towers(model: nn.Module) -> dict[str, nn.Module]:
    children = {"image": getattr(model, "visual", None), "text": getattr(model, "text", None)}
    towers = {name: tower for name, tower in children.items() if isinstance(tower, nn.Module)}
    if not towers:
        raise InputError(f"{type(model).__name__} has no tower to profile, neither `visual` nor `text`")
    return towers


def _check_device(towers: Mapping[str, nn.Module], device: torch.device) -> None:
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: found '{device}', memory is measured on cpu and cuda only")
    for name, tower in towers.items():
        for parameter in tower.parameters():
            if parameter.device.type != device.type or device.index not in (None, parameter.device.index):
                raise InputError(
                    f"device: found '{device}' but the {name} tower is on '{parameter.device}'; call "
                    f"model.to('{device}') first"
                )


def _dtype(tower: nn.Module) -> torch.dtype:
    return next((p.dtype for p in tower.parameters() if p.is_floating_point()), torch.float32)


def _profile_tower(tower: nn.Module, batch: Tensor, steps: int) -> TowerProfile:
    forward = partial(tower, batch)
    forward()
    return TowerProfile(
        *_parameters(tower),
        dtype=str(_dtype(tower)).removeprefix("torch."),
        input_shape=tuple(batch.shape),
        macs=_count_macs(tower, batch[:1]),
        latency=_median_seconds(forward, steps, batch.device),
        peak_activation_bytes=_peak_activation_bytes(forward, batch.device),
    )


def _parameters(module: nn.Module) -> tuple[int, int]:
    """Return count and bytes."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)


def _count_macs(tower: nn.Module, sample: Tensor) -> int:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            tower(sample)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2


def _median_seconds(forward: Callable[[], object], steps: int, device: torch.device) -> float:
    def timed() -> float:
        _wait(device)
        start = time.perf_counter()
        forward()
        _wait(device)
        return time.perf_counter() - start

    return statistics.median(timed() for _ in range(steps))


def _wait(device: torch.device) -> None:
    """Wait for the kernels that were launched; on a CPU a call returns when its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_activation_bytes(forward: Callable[[], object], device: torch.device) -> int:
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        forward()
        return torch.cuda.max_memory_allocated(device) - before
    # a CPU keeps no count, so the allocations and releases are replayed; a release of what was there before is left out
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        forward()
    with TemporaryDirectory() as folder:
        path = Path(folder, "memory.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]  # of this process and this moment, and of any size
    changes = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    live: dict[int, int] = {}
    held = peak = 0
    for change in (event["args"] for event in changes):
        if change["Bytes"] > 0:
            live[change["Addr"]] = change["Bytes"]
            held += change["Bytes"]
        else:
            held -= live.pop(change["Addr"], 0)
        peak = max(peak, held)
    return peak


def _cpu_name() -> str:
    """Return the processor's model; `platform` alone knows only its architecture on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
