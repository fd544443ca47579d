"""Poolings of tokens, against what they are by definition."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import AttentionalPooler as PeerPooler

from support.peer import randomized
from zoo_core.errors import InputError
from zoo_core.nn.pooling import AttentionalPooler, masked_mean, pool_at_eos, pool_at_largest_id

END = 9
TOKENS = torch.arange(24.0).reshape(2, 4, 3)  # [B, L, C]


def test_the_token_at_the_first_largest_id_is_taken() -> None:
    text = torch.tensor([[1, 9, 3, 9], [5, 1, 2, 4]])
    assert torch.equal(pool_at_largest_id(TOKENS, text), torch.stack([TOKENS[0, 1], TOKENS[1, 0]]))


def test_the_token_at_the_first_end_of_text_is_taken() -> None:
    text = torch.tensor([[1, END, 30, END], [30, 1, 2, END]])
    assert torch.equal(pool_at_eos(TOKENS, text, END), torch.stack([TOKENS[0, 1], TOKENS[1, 3]]))


def test_the_first_row_without_an_end_of_text_is_named() -> None:
    text = torch.tensor([[1, END, 0, 0], [1, 2, 3, 4], [4, 3, 2, 1]])
    with pytest.raises(InputError, match="^row 1 of the token ids has no end-of-text id 9,"):
        pool_at_eos(torch.zeros(3, 4, 3), text, END)


def test_a_row_without_an_end_of_text_has_no_feature_where_its_ids_cannot_be_read() -> None:
    text = torch.tensor([[1, END, 0, 0], [1, 2, 3, 4]])
    with torch.device("cpu"):
        found = torch.func.vmap(lambda x, ids: pool_at_eos(x[None], ids[None], END)[0])(TOKENS, text)
    assert torch.equal(found[0], TOKENS[0, 1])
    assert found[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_mean_is_that_of_the_kept_tokens_in_their_dtype(dtype: torch.dtype) -> None:
    kept = torch.tensor([[True, False, True, False], [False, False, False, True]])
    found = masked_mean(TOKENS.to(dtype), kept)
    assert found.dtype == dtype
    assert torch.equal(found.double(), torch.stack([TOKENS[0, [0, 2]].mean(dim=0), TOKENS[1, 3]]).double())


def test_the_mean_of_a_long_row_exceeds_no_dtype() -> None:
    x = torch.full((1, 4_000, 2), 60.0, dtype=torch.float16)
    assert torch.equal(masked_mean(x, torch.ones(1, 4_000, dtype=torch.bool)), x[:, 0])


@pytest.mark.parametrize("context_width", [16, 24])
def test_attention_of_learned_queries_gives_the_peers_features(context_width: int) -> None:
    theirs = randomized(PeerPooler(d_model=16, context_dim=context_width, n_head=2, n_queries=5)).eval()
    ours = AttentionalPooler(16, context_width, 2, 5).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 7, context_width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("context_width", [64, 96])
def test_projections_of_a_pooler_are_drawn_as_in_torchs_attention(context_width: int) -> None:
    torch.manual_seed(0)
    attention = AttentionalPooler(64, context_width, 2, 1).attn
    theirs = dict(torch.nn.MultiheadAttention(64, 2, kdim=context_width, vdim=context_width).named_parameters())
    for name in "qkv":
        projection = getattr(attention, f"{name}_proj")
        drawn = theirs.get(f"{name}_proj_weight", theirs.get("in_proj_weight"))
        assert drawn is not None
        assert float(projection.weight.detach().std()) == pytest.approx(float(drawn.detach().std()), rel=0.05), name
        assert not projection.bias.any(), name
    assert not attention.out_proj.bias.any()
