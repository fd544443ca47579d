"""A graph that one example made serves other inputs: captions of other lengths above all."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import zoo
from support.models.families import FAMILIES, pictures
from zoo_core.errors import InputError
from zoo_core.nn.inference_forms import forms_of

CLIP = FAMILIES["ViT CLIP"].architecture
CLIP["text"] |= {"context_length": 24}
EOS = {**CLIP["text"], "pool_type": "eos", "eos_id": CLIP["text"]["vocab_size"] - 1}
SENTENCES = ["a", "a cat", "a cat sat", "a cat sat on a mat", "one two three four five six", "z"]


class Text(nn.Module):
    """The text side of a model, to trace."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor) -> Tensor:
        """Return features of texts."""
        return self.model.encode_text(text)


def traced(module: nn.Module, *example: Tensor) -> Any:
    """Return the graph of torch.jit.trace, which torch advises against."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, example, check_trace=False)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("text", [CLIP["text"], EOS])
def test_a_traced_whole_model_serves_captions_that_are_longer_and_shorter_than_its_example(
    text: dict[str, Any], training: bool
) -> None:
    model = zoo.build({**CLIP, "text": text}).train(training)
    ids = model.tokenizer(SENTENCES)
    image = pictures(model, len(ids))
    with torch.no_grad():
        for example in (0, 4):
            graph = traced(model, image[:1], ids[example : example + 1])
            for found, expected in zip(graph(image, ids), model(image, ids), strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_inference_form_that_cuts_texts_is_traced_whole() -> None:
    model = zoo.build(CLIP)
    (form,) = [one for one in forms_of(model.text) if one.name == "last block for the pooled token"]
    model.text = form.make()
    ids = model.tokenizer(SENTENCES)
    graph = traced(model.text, ids[:1])
    with torch.no_grad():
        torch.testing.assert_close(graph(ids), model.text(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dynamo", [False, True])
def test_an_onnx_graph_serves_captions_that_are_longer_than_its_example(dynamo: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript" if dynamo else "onnx")
    model = zoo.build(CLIP)
    ids = model.tokenizer(SENTENCES)
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes: dict[str, Any] = (
        {"dynamic_shapes": {"text": {0: batch}}} if dynamo else {"dynamic_axes": {"text": {0: "batch"}}}
    )
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Text(model), (ids[:2],), None if dynamo else buffer, input_names=["text"], dynamo=dynamo, **shapes
        )
        graph = program.model_proto.SerializeToString() if dynamo else buffer.getvalue()
        expected = model.encode_text(ids)
    session = onnxruntime.InferenceSession(graph)
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"text": ids.numpy()})[0]), expected, rtol=0, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of attention under vmap
def test_gradients_of_each_caption_by_vmap_are_those_of_one_caption_at_a_time() -> None:
    model = zoo.build(CLIP)
    ids = model.tokenizer(SENTENCES)

    def loss(weight: Tensor, row: Tensor) -> Tensor:
        name = "text.text_projection"
        features = torch.func.functional_call(Text(model), {f"model.{name}": weight}, (row[None],))
        return features.square().sum()

    weight = model.text.text_projection.detach()
    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, ids)
    for row, gradient in zip(ids, found, strict=True):
        (expected,) = torch.autograd.grad(model.encode_text(row[None]).square().sum(), model.text.text_projection)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


class Pictures(nn.Module):
    """The image side of a model, to trace."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return features of images."""
        return self.model.encode_image(image)


@pytest.mark.parametrize("engine", ["torch", "pil"])
@pytest.mark.parametrize(
    "trace",
    [traced, lambda module, example: make_fx(module)(example), lambda module, one: torch.export.export(module, (one,))],
    ids=["torch.jit.trace", "make_fx", "torch.export"],
)
def test_raw_pixels_are_refused_where_a_graph_would_keep_them(trace: Callable[..., Any], engine: str) -> None:
    model = zoo.build(CLIP | {"preprocess": {"type": "image", "engine": engine}}).requires_grad_(False)
    pixels = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    with pytest.raises(InputError, match="raw pixels cannot be traced or exported: .* model.preprocess.batch"):
        trace(Pictures(model), pixels)
    fresh = zoo.preprocess(model).batch(pixels)
    assert torch.equal(model.preprocess.batch(pixels), fresh)  # nothing of the graph stays in the preprocessing
    graph = trace(Pictures(model), fresh)
    graph = graph.module() if isinstance(graph, torch.export.ExportedProgram) else graph
    torch.testing.assert_close(graph(fresh), model.encode_image(pixels), rtol=0, atol=1e-5)


def test_ids_that_no_row_may_hold_are_still_refused_outside_graphs() -> None:
    model = zoo.build({**CLIP, "text": EOS})
    ids = model.tokenizer(SENTENCES)
    with pytest.raises(InputError, match="token ids run from"):
        model.encode_text(ids + 600)
    with pytest.raises(InputError, match="no end-of-text id|the largest id in row"):
        model.encode_text(torch.zeros_like(ids))
