"""The search for captions, against brute force over all rows of a toy vocabulary, and on CoCa, with its cache."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from support.peer import images, randomized
from zoo_coca.config import GenerationConfig
from zoo_coca.decoder import CaptionSteps
from zoo_coca.generation import Prompts, Vocabulary, allowed, distribution, search
from zoo_core.errors import ConfigError, InputError
from zoo_core.nn.kv_cache import KVCache

PAD, SOT, EOT = 0, 4, 5
TOY = Vocabulary(sot_id=SOT, eot_id=EOT, pad_id=PAD, size=6)
LOGITS = 7
"""Ids that have logits: one more than the toy vocabulary has."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Toy:
    """Random logits that depend on the image and on every token so far."""

    def __init__(self, seeds: list[int], sharpness: float = 2.0) -> None:
        self.seeds, self.sharpness = torch.tensor(seeds), sharpness
        self.rows = torch.zeros(len(seeds), 0, dtype=torch.int64)

    def next_logits(self, ids: Tensor) -> Tensor:
        self.rows = torch.cat([self.rows, ids], dim=1)
        return torch.stack([self.logits(int(seed), row) for seed, row in zip(self.seeds, self.rows.tolist())])  # noqa: B905

    def logits(self, seed: int, row: list[int]) -> Tensor:
        place = seed
        for token in row:
            place = (place * 31 + token + 7) % 1_000_003
        return self.sharpness * torch.randn(LOGITS, generator=torch.Generator().manual_seed(place))

    def repeat(self, times: int) -> None:
        self.seeds, self.rows = (one.repeat_interleave(times, dim=0) for one in (self.seeds, self.rows))

    def take(self, rows: Tensor) -> None:
        assert torch.equal(self.seeds, self.seeds[rows]), "a row went over to another image"
        self.rows = self.rows[rows]


def options(**values: Any) -> GenerationConfig:
    return GenerationConfig.parse({"min_length": 0, **values})


def prompts(*rows: list[int]) -> Prompts:
    return Prompts.of_rows(rows, TOY, torch.device("cpu"))


def found(seeds: list[int], config: GenerationConfig, *rows: list[int], generator: Any = None) -> list[list[int]]:
    """Return what the search finds for each image, without padding."""
    ids = search(Toy(seeds), prompts(*(rows or [[SOT]] * len(seeds))), TOY, config, generator)
    return [[token for token in row if token != PAD] for row in ids.tolist()]


# References in plain Python


def log_probabilities(seed: int, row: list[int], config: GenerationConfig) -> dict[int, float]:
    """Return the log-probability of each id that may follow a row."""
    logits = dict(enumerate(Toy([]).logits(seed, row).tolist()))
    for token in set(row):
        value = logits[token]
        logits[token] = value / config.repetition_penalty if value > 0 else value * config.repetition_penalty
    del logits[PAD], logits[6]
    if len(row) < config.min_length:
        del logits[EOT]
    total = math.log(sum(math.exp(value) for value in logits.values()))
    return {token: value - total for token, value in logits.items()}


def brute_force(seed: int, config: GenerationConfig, prompt: list[int]) -> list[int]:
    """Return the best of all rows that end, or are as long as can be."""
    best: tuple[float, list[int]] = (-math.inf, [])
    for count in range(1, config.max_length - len(prompt) + 1):
        for tokens in itertools.product(range(1, 6), repeat=count):
            cut = len(prompt) + count == config.max_length
            if EOT in tokens[:-1] or not (tokens[-1] == EOT or cut):
                continue
            row, total = [*prompt], 0.0
            for token in tokens:
                total += log_probabilities(seed, row, config).get(token, -math.inf)
                row.append(token)
            best = max(best, (total / count**config.length_penalty, row))
    return best[1]


def reference_beams(seed: int, config: GenerationConfig, prompt: list[int]) -> list[int]:
    """Return what beam search finds: lists instead of tensors, one image, no cache."""
    groups, width = config.num_beam_groups, config.num_beams // config.num_beam_groups
    live = [[(0.0, prompt)] for _ in range(groups)]
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(groups)]
    for length in range(len(prompt), config.max_length):
        chosen: Counter[int] = Counter()
        for group in range(groups):
            if len(ended[group]) >= width:
                continue
            candidates = [
                (total + value - config.diversity_penalty * chosen[token], total + value, [*row, token])
                for total, row in live[group]
                for token, value in log_probabilities(seed, row, config).items()
            ]
            candidates.sort(key=lambda one: -one[0])
            norm = (length + 1 - len(prompt)) ** config.length_penalty
            ended[group] += [(total / norm, row) for _, total, row in candidates[:width] if row[-1] == EOT]
            live[group] = [(total, row) for _, total, row in candidates if row[-1] != EOT][:width]
            if len(ended[group]) < width:
                chosen.update(row[-1] for _, row in live[group])
    norm = (config.max_length - len(prompt)) ** config.length_penalty
    for group in range(groups):
        if len(ended[group]) < width:
            ended[group] += [(total / norm, row) for total, row in live[group]]
    return max(itertools.chain(*ended))[1]


# Beam search


SEEDS = [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "values",
    [{}, {"length_penalty": 0.0}, {"length_penalty": 2.0}, {"min_length": 3}, {"repetition_penalty": 1.7}],
    ids=repr,
)
def test_beams_for_every_row_find_the_best_of_all_rows(values: dict[str, Any]) -> None:
    config = options(num_beams=300, max_length=5, **values)
    assert found(SEEDS[:3], config) == [brute_force(seed, config, [SOT]) for seed in SEEDS[:3]]


@pytest.mark.parametrize("num_beams", [1, 2, 3, 6])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beam_search_is_that_of_plain_lists(num_beams: int, length_penalty: float) -> None:
    config = options(num_beams=num_beams, max_length=9, length_penalty=length_penalty)
    assert found(SEEDS, config) == [reference_beams(seed, config, [SOT]) for seed in SEEDS]


@pytest.mark.parametrize(("num_beams", "groups"), [(2, 2), (4, 2), (6, 3), (6, 2), (12, 2), (14, 2)])
@pytest.mark.parametrize("penalty", [0.5, 5.0])
def test_groups_of_beams_are_those_of_plain_lists(num_beams: int, groups: int, penalty: float) -> None:
    config = options(num_beams=num_beams, num_beam_groups=groups, diversity_penalty=penalty, max_length=8)
    assert found(SEEDS, config) == [reference_beams(seed, config, [SOT]) for seed in SEEDS]


def test_groups_keep_away_from_each_other() -> None:
    """With a penalty that outweighs all else, one-beam groups differ in each token from all groups before."""
    config = options(num_beams=3, num_beam_groups=3, diversity_penalty=1e4, max_length=6, min_length=5)
    toy = Toy([1])
    search(toy, prompts([SOT]), TOY, config)
    for place in range(1, toy.rows.shape[1]):
        assert len(set(toy.rows[:, place].tolist())) == 3


def test_one_beam_is_greedy() -> None:
    for length_penalty in (0.0, 1.0, 3.0):
        beam = options(num_beams=1, max_length=12, length_penalty=length_penalty)
        assert found(SEEDS, beam) == found(SEEDS, options(strategy="greedy", max_length=12))


def test_prompts_are_padded_to_the_length_asked_for() -> None:
    rows = prompts([SOT], [SOT, 1, 2]).rows(5, PAD)
    assert rows.tolist() == [[SOT, PAD, PAD, PAD, PAD], [SOT, 1, 2, PAD, PAD]]


def test_rows_of_beams_are_padded_to_the_longest_of_them() -> None:
    for length_penalty in (0.0, 1.0):
        config = options(num_beams=3, max_length=12, length_penalty=length_penalty)
        rows = search(Toy(SEEDS), prompts(*[[SOT]] * 6), TOY, config)
        assert rows.shape[1] == max(len([token for token in row if token != PAD]) for row in rows.tolist()) < 12


def test_prompts_of_several_lengths_are_kept_and_gone_on_from() -> None:
    rows = [[SOT], [SOT, 1, 2, 3], [SOT, 3, 3]]
    for config in (
        options(strategy="greedy", max_length=8),
        options(num_beams=4, max_length=8),
        options(num_beams=4, num_beam_groups=2, max_length=8),
    ):
        seeds, starts = list(range(1, 13)), rows * 4
        together = found(seeds, config, *starts)
        assert together == [found([seed], config, row)[0] for seed, row in zip(seeds, starts, strict=True)]
        assert all(row[: len(prompt)] == prompt for row, prompt in zip(together, starts, strict=True))
    config = options(num_beams=300, max_length=6)
    assert found([2], config, rows[1]) == [brute_force(2, config, rows[1])]


# Greedy search and drawing


def test_greedy_search_takes_the_most_probable_token_each_time() -> None:
    config = options(strategy="greedy", max_length=10, repetition_penalty=1.3)
    for seed, row in zip(SEEDS, found(SEEDS, config), strict=True):
        for place in range(1, len(row)):
            choices = log_probabilities(seed, row[:place], config)
            assert row[place] == max(choices, key=choices.__getitem__)


def test_rows_end_once_and_are_padded_to_the_longest() -> None:
    rows = search(Toy(SEEDS), prompts(*[[SOT]] * 6), TOY, options(strategy="greedy", max_length=10))
    ends = [row.index(EOT) if EOT in row else len(row) - 1 for row in rows.tolist()]
    assert len(set(ends)) > 1 and rows.shape[1] == max(ends) + 1
    for row, end in zip(rows.tolist(), ends, strict=True):
        assert PAD not in row[: end + 1] and set(row[end + 1 :]) <= {PAD}


@pytest.mark.parametrize("strategy", ["greedy", "beam", "top_k", "top_p"])
def test_lengths_are_kept(strategy: str) -> None:
    for least, most in ((0, 4), (3, 4), (6, 7), (7, 12)):
        config = options(strategy=strategy, min_length=least, max_length=most)
        for row in found(SEEDS, config):
            assert least < len(row) <= most
            assert row[-1] == EOT or len(row) == most


def frequencies(seed: int, config: GenerationConfig) -> list[float]:
    rows, count = torch.full((40_000, 1), SOT), Counter[int]()
    logits = Toy([]).logits(seed, [SOT]).expand(len(rows), -1)
    drawn = torch.multinomial(
        distribution(allowed(logits, rows, TOY, config), config), 1, generator=torch.Generator().manual_seed(0)
    )
    count.update(drawn[:, 0].tolist())
    return [count[token] / len(rows) for token in range(LOGITS)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("kept", [{"strategy": "top_k", "top_k": 3}, {"strategy": "top_p", "top_p": 0.8}], ids=repr)
@pytest.mark.parametrize("seed", [1, 2])
def test_tokens_are_drawn_as_often_as_they_are_probable(seed: int, kept: dict[str, Any], temperature: float) -> None:
    config = options(temperature=temperature, **kept)
    raw = log_probabilities(seed, [SOT], config)
    weights = {token: math.exp(value / temperature) for token, value in raw.items()}
    total, ranked = sum(weights.values()), sorted(weights, key=lambda token: -weights[token])
    if config.strategy == "top_k":
        chosen = ranked[:3]
    else:
        chosen, mass = [], 0.0
        while mass < 0.8:
            chosen.append(ranked[len(chosen)])
            mass += weights[chosen[-1]] / total
    expected = [weights[token] if token in chosen else 0.0 for token in range(1, 6)]
    share = [0.0, *(weight / sum(expected) for weight in expected), 0.0]
    logits = allowed(Toy([]).logits(seed, [SOT])[None], torch.tensor([[SOT]]), TOY, config)
    torch.testing.assert_close(distribution(logits, config), torch.tensor([share]), rtol=1e-5, atol=1e-6)
    for one, other in zip(frequencies(seed, config), share, strict=True):
        assert abs(one - other) <= 5 * math.sqrt(other * (1 - other) / 40_000)


def test_the_fewest_tokens_whose_probability_reaches_top_p_are_drawn_from() -> None:
    for count, top_p in ((1, 0.25), (2, 0.5), (3, 0.5 + 1e-6), (4, 1.0)):
        config = options(strategy="top_p", top_p=top_p)
        share = torch.tensor([[1 / count] * count + [0.0] * (4 - count)])
        torch.testing.assert_close(distribution(torch.zeros(1, 4), config), share)


def test_of_equally_probable_tokens_the_first_are_drawn_from_as_greedy_search_takes_them() -> None:
    logits = torch.zeros(1, 500).index_fill(1, torch.arange(7), -1.0)
    assert distribution(logits, options(strategy="top_k", top_k=3)).nonzero()[:, 1].tolist() == [7, 8, 9]
    assert logits.argmax() == 7


def test_a_search_that_draws_gives_the_probabilities_of_whole_rows() -> None:
    config = options(strategy="top_p", top_p=1.0, max_length=3)
    count = Counter(map(tuple, found([1] * 6_000, config, generator=torch.Generator().manual_seed(1))))
    for row, times in count.items():
        share = math.exp(
            sum(log_probabilities(1, list(row[:place]), config)[row[place]] for place in range(1, len(row)))
        )
        assert abs(times / 6_000 - share) <= 5 * math.sqrt(share * (1 - share) / 6_000)


def test_the_most_probable_token_is_always_kept() -> None:
    greedy = found(SEEDS, options(strategy="greedy", max_length=9))
    assert found(SEEDS, options(strategy="top_k", top_k=1, max_length=9)) == greedy
    assert found(SEEDS, options(strategy="top_p", top_p=1e-6, max_length=9)) == greedy


def test_repetition_divides_positive_and_multiplies_negative_logits_once() -> None:
    logits = torch.tensor([[0.5, 2.0, -2.0, 0.5, -1.0, 0.25, 9.0]])
    rows = torch.tensor([[SOT, 1, 2, 1, 3]])
    config = options(repetition_penalty=2.0)
    never = -math.inf
    assert allowed(logits, rows, TOY, config).tolist() == [[never, 1.0, -4.0, 0.25, -2.0, 0.25, never]]
    assert logits[0, 0] == 0.5, "the logits were changed in place"
    late = options(repetition_penalty=2.0, min_length=6)
    assert allowed(logits, rows, TOY, late)[0, EOT] == never


def test_padding_that_is_the_end_of_text_may_be_chosen() -> None:
    same_id = Vocabulary(sot_id=SOT, eot_id=EOT, pad_id=EOT)
    row = allowed(torch.zeros(1, 6), torch.tensor([[SOT]]), same_id, options())
    assert row.isfinite().all()
    ids = search(Toy(SEEDS), Prompts.of_rows([[SOT]] * 6, same_id, torch.device("cpu")), same_id, options())
    for line in ids.tolist():
        assert EOT not in line or set(line[line.index(EOT) :]) == {EOT}


# Options

BAD = {
    "strategy": ({"strategy": "beams"}, "strategy: 'beams' is not known, did you mean 'beam'?"),
    "unknown": ({"num_beam": 3}, "num_beam: unknown key, did you mean 'num_beams'?"),
    "lengths": ({"min_length": 30}, "min_length: 30 is not below max_length = 30"),
    "groups": (
        {"num_beams": 6, "num_beam_groups": 4},
        "num_beam_groups: 4 does not divide num_beams = 6",
    ),
    "penalty of one group": ({"diversity_penalty": 0.5}, "diversity_penalty: there is one group of beams"),
    "unread by beams": (
        {"temperature": 0.5},
        "temperature: strategy 'beam' does not read it, only 'top_k' and 'top_p'; leave it out",
    ),
    "unread by greedy": (
        {"strategy": "greedy", "num_beams": 6},
        "num_beams: strategy 'greedy' does not read it, only 'beam'; leave it out",
    ),
    "top_k of top_p": ({"strategy": "top_p", "top_k": 5}, "top_k: strategy 'top_p' does not read it, only 'top_k'"),
    "temperature": ({"strategy": "top_k", "temperature": 0}, "temperature: must be greater than 0, found 0"),
    "top_k": ({"strategy": "top_k", "top_k": 0}, "top_k: must be at least 1, found 0"),
    "top_p": ({"strategy": "top_p", "top_p": 1.5}, "top_p: must be at most 1, found 1.5"),
    "type": ({"num_beams": "6"}, "num_beams: expected a whole number, found '6'"),
    "repetition": ({"repetition_penalty": 0.0}, "repetition_penalty: must be greater than 0, found 0.0"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_option_is_told(what: str) -> None:
    values, message = BAD[what]
    with pytest.raises(ConfigError) as raised:
        GenerationConfig.parse(values)
    assert message in str(raised.value)


# CoCa


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny()


def tiny(*overrides: str) -> Any:
    changes = [
        "embed_dim=32",
        "vision.width=32",
        "vision.head_width=8",
        "vision.layers=2",
        "vision.image_size=64",
        "vision.attn_pooler_queries=9",
        "text.width=32",
        "text.heads=4",
        "text.layers=2",
        "text.vocab_size=530",
        "text.context_length=16",
        "tokenizer.vocab_size=524",
        "multimodal.width=32",
        "multimodal.heads=4",
        "multimodal.layers=2",
        *overrides,
    ]
    model: Any = randomized(zoo.build("coca-vit-b32", overrides=changes)).eval()
    with torch.no_grad():  # a prompt of one token would else lead to the same few tokens for each image
        model.text_decoder.text_projection *= 4
    return model


def without_cache(model: Any) -> Callable[[Any, Tensor], Any]:
    """Return steps that send whole rows through the text tower and the decoder each time."""

    class Whole:
        def __init__(self, image_tokens: Tensor) -> None:
            self.image_tokens, self.rows = image_tokens, torch.zeros(len(image_tokens), 0, dtype=torch.int64)

        def next_logits(self, ids: Tensor) -> Tensor:
            self.rows = torch.cat([self.rows, ids], dim=1)
            tokens = model.text.forward_tokens(self.rows)[1]
            return model.text_decoder(self.image_tokens, tokens)[:, -1]

        def repeat(self, times: int) -> None:
            self.image_tokens = self.image_tokens.repeat_interleave(times, dim=0)
            self.rows = self.rows.repeat_interleave(times, dim=0)

        def take(self, rows: Tensor) -> None:
            self.rows = self.rows[rows]

    return lambda _, image_tokens: Whole(image_tokens)


PROMPTS: list[Any] = [None, "a", ["a", "the of", "", "in"]]
SEARCHES: list[dict[str, Any]] = [
    {"strategy": "greedy", "max_length": 16},
    {"strategy": "greedy", "max_length": 16, "min_length": 12, "repetition_penalty": 1.2},
    {"num_beams": 4, "max_length": 14},
    {"num_beams": 6, "num_beam_groups": 3, "max_length": 14, "min_length": 10},
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
@pytest.mark.parametrize("values", SEARCHES, ids=repr)
def test_the_cache_changes_no_id(model: Any, prompt: Any, values: dict[str, Any]) -> None:
    image = images(model, 4)
    expected_steps = without_cache(model)
    vocabulary = Vocabulary.of(model.tokenizer)
    with torch.no_grad():
        image_tokens = model.visual.forward_tokens(image)[1]
        texts = [prompt] * 4 if isinstance(prompt, str) else prompt or [""] * 4
        rows = [[vocabulary.sot_id, *model.tokenizer.encode(text)] for text in texts]
        start = Prompts.of_rows(rows, vocabulary, torch.device("cpu"))
        config = GenerationConfig.parse(values)
        expected = search(expected_steps(model, image_tokens), start, vocabulary, config)
    assert torch.equal(model.generate(image, prompt, **values), expected)
    assert len({tuple(row) for row in expected.tolist()}) > 1, "the images make no difference"


@pytest.mark.parametrize("chunks", [[16], [1] * 16, [5, 1, 1, 6, 3]], ids=repr)
@pytest.mark.parametrize("overrides", [[], ["text.class_token_mask=exact"]], ids=repr)
def test_logits_with_the_cache_are_those_of_the_whole_row(chunks: list[int], overrides: list[str]) -> None:
    model = tiny(*overrides)
    ids = torch.randint(1, 520, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image_tokens = model.visual.forward_tokens(images(model, 3))[1]
        whole = model.text_decoder(image_tokens, model.text.forward_tokens(ids)[1])
        steps, seen = CaptionSteps(model.text, model.text_decoder, image_tokens), 0
        for chunk in chunks:
            found = steps.next_logits(ids[:, seen : seen + chunk])
            seen += chunk
            torch.testing.assert_close(found, whole[:, seen - 1], rtol=1e-5, atol=1e-5)


def test_a_plain_text_tower_goes_on_with_normed_tokens() -> None:
    component = zoo.registry().get("text-tower", "clip-transformer")
    values: dict[str, Any] = {"context_length": 8, "vocab_size": 20, "width": 16, "layers": 2, "heads": 2}
    config: Any = component.config_class().parse({**values, "block": {"qk_norm": True, "scale_heads": True}})
    tower: Any = randomized(component.build(config, embed_dim=8)).eval()
    ids, memory = torch.randint(0, 20, (2, 8)), KVCache()
    with torch.no_grad():
        parts = [tower.decode_step(part, memory) for part in ids.split(3, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), tower.forward_tokens(ids)[1], rtol=1e-5, atol=1e-5)
    assert len(memory) == 8
    with pytest.raises(InputError, match="9 tokens are more than the context length 8"):
        tower.decode_step(ids[:, :1], memory)


@pytest.mark.parametrize("values", SEARCHES, ids=repr)
def test_images_do_not_feel_each_other(model: Any, values: dict[str, Any]) -> None:
    image, texts = images(model, 4), ["a", "the of", "", "in"]
    together = model.generate(image, texts, **values)
    for number in range(4):
        alone = model.generate(image[number : number + 1], texts[number], **values)
        assert torch.equal(together[number : number + 1, : alone.shape[1]], alone)
        assert not together[number, alone.shape[1] :].any()


def test_one_beam_of_coca_is_greedy(model: Any) -> None:
    image = images(model, 4)
    greedy = model.generate(image, strategy="greedy", max_length=16)
    assert torch.equal(model.generate(image, num_beams=1, max_length=16), greedy)


def test_greedy_captions_are_the_peers() -> None:
    """The peer reads each row anew, image and all, for each token."""
    import open_clip
    from open_clip.coca_model import CoCa as PeerCoCa

    model = tiny()
    section = {"width": 32, "layers": 2, "heads": 4, "context_length": 16}
    vision = {"image_size": 64, "patch_size": 32, "width": 32, "head_width": 8, "layers": 2}
    theirs: Any = PeerCoCa(
        embed_dim=32,
        multimodal_cfg=section,
        text_cfg=open_clip.CLIPTextCfg(**section, vocab_size=530, embed_cls=True, output_tokens=True),
        vision_cfg={**vision, "attentional_pool": True, "attn_pooler_queries": 9, "output_tokens": True},
    ).eval()
    theirs.load_state_dict(model.state_dict())
    image = images(model, 6)
    found = model.generate(image, strategy="greedy", max_length=14)
    rows = torch.full((6, 1), model.tokenizer.sot_id)
    with torch.no_grad():
        while rows.shape[1] < 14:
            logits = theirs(image, rows, output_labels=False)["logits"][:, -1, : model.tokenizer.vocab_size]
            logits[:, model.tokenizer.pad_id] = -math.inf
            if rows.shape[1] < 5:
                logits[:, model.tokenizer.eot_id] = -math.inf
            rows = torch.cat([rows, logits.argmax(dim=1, keepdim=True)], dim=1)
    for row, expected in zip(found.tolist(), rows.tolist(), strict=True):
        end = row.index(model.tokenizer.eot_id) + 1 if model.tokenizer.eot_id in row else len(row)
        assert row[:end] == expected[:end]
    assert found.shape[1] > 6


def test_only_ids_of_the_tokenizer_are_written(model: Any) -> None:
    """The text tower has more rows than the tokenizer has ids."""
    assert model.vocab_size > model.tokenizer.vocab_size
    rows = model.generate(
        images(model, 8), strategy="top_k", top_k=500, max_length=16, generator=torch.Generator().manual_seed(0)
    )
    assert rows.max() < model.tokenizer.vocab_size
    wide = Vocabulary(model.tokenizer.sot_id, model.tokenizer.eot_id, pad_id=0)
    assert (model.generate(images(model, 64), strategy="top_k", top_k=530, vocabulary=wide, max_length=16) > 523).any()


def test_start_end_and_padding_are_those_of_the_tokenizer(model: Any) -> None:
    changed = Vocabulary(sot_id=7, eot_id=9, pad_id=3, size=520)
    for values in SEARCHES:
        rows = model.generate(images(model, 16), vocabulary=changed, **values)
        assert (rows[:, 0] == 7).all()
        for row in rows.tolist():
            end = row.index(9) if 9 in row else len(row)
            assert 3 not in row[:end] and set(row[end + 1 :]) <= {3}


def test_captions_are_strings_that_begin_with_the_prompt(model: Any) -> None:
    image = images(model, 2)
    found = model.caption(image, "a", strategy="greedy", max_length=8)
    rows = model.generate(image, "a", strategy="greedy", max_length=8)
    assert found == [model.tokenizer.decode(row) for row in rows]
    assert all(caption.startswith("a ") for caption in found)


def test_a_prompt_may_be_a_tokenized_caption_and_is_read_up_to_its_end(model: Any) -> None:
    image = images(model, 2)
    expected = model.generate(image, ["a", "the of"], num_beams=2, max_length=12)
    assert torch.equal(model.generate(image, model.tokenizer(["a", "the of"]), num_beams=2, max_length=12), expected)
    one = model.generate(image, "a", num_beams=2, max_length=12)
    assert torch.equal(model.generate(image, model.tokenizer("a")[0], num_beams=2, max_length=12), one)


def test_a_seeded_generator_gives_the_same_captions_again(model: Any) -> None:
    image = images(model, 4)

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.generate(image, strategy="top_p", max_length=12, generator=generator)

    before = torch.random.get_rng_state()
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_module_stays_in_its_own_mode() -> None:
    model = tiny("vision.patch_dropout=0.5")
    model.train()
    model.text.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    first = model.generate(images(model), max_length=8)
    assert torch.equal(model.generate(images(model), max_length=8), first), "patches were dropped"
    with pytest.raises(InputError):
        model.generate(images(model), torch.tensor([1, 2]), max_length=8)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_images_have_no_captions(model: Any) -> None:
    assert model.generate(images(model, 4)[:0], max_length=8).shape[0] == 0
    assert model.caption(images(model, 4)[:0], max_length=8) == []


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "too long": (None, {"max_length": 17}, "max_length = 17 exceeds the context length 16"),
    "no room": ("a", {"max_length": 2, "min_length": 0}, "max_length = 2 leaves no room after 2 ids of prompt"),
    "no start": (torch.tensor([[5, 6]]), {"max_length": 8}, "prompt 0 must begin with the start of text, id 522"),
    "padding inside": (
        torch.tensor([[522, 5, 0, 6]]),
        {"max_length": 8},
        "prompt 0 holds id 0, which is padding, before its end; rephrase it",
    ),
    "a word that is padding": (["a", "!!"], {"max_length": 8}, "prompt 1 holds id 0, which is padding"),
    "no strings": (["a", 3], {"max_length": 8}, "expected a string, found int"),
    "vocabulary": (
        None,
        {"max_length": 8, "vocabulary": Vocabulary(sot_id=1, eot_id=600, pad_id=0)},
        "vocabulary: eot_id must be an id from 0 to 529, found 600",
    ),
    "floats": (torch.zeros(2, 3), {"max_length": 8}, "expected int64 ids [B, P] or [P], found torch.float32 [2, 3]"),
    "count": (["a", "b", "c"], {"max_length": 8}, "expected one prompt, or one for each of 2 images, found 3"),
    "drawing": (
        None,
        {"max_length": 8, "generator": torch.Generator()},
        "strategy 'beam' draws nothing: leave the generator out",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_is_told(model: Any, what: str) -> None:
    text, values, message = WRONG[what]
    with pytest.raises(InputError) as raised:
        model.generate(images(model, 2), text, **values)
    assert message in str(raised.value)


@pytest.mark.parametrize(("name", "what"), [("sot_id", "start"), ("eot_id", "end")])
def test_a_tokenizer_without_a_start_or_an_end_needs_a_vocabulary(name: str, what: str) -> None:
    bare = tiny()
    setattr(bare.tokenizer, name, None)
    with pytest.raises(InputError, match=f"captions of this model's tokenizer have no {what} of text; give a vocab"):
        bare.generate(images(bare), max_length=8)
    vocabulary = Vocabulary(sot_id=7, eot_id=9, pad_id=3, size=520)
    assert bare.generate(images(bare), max_length=8, vocabulary=vocabulary)[:, 0].tolist() == [7] * len(images(bare))


def test_a_model_without_a_tokenizer_says_so(model: Any) -> None:
    bare = tiny()
    bare.tokenizer = None
    with pytest.raises(InputError, match="this model has no tokenizer"):
        bare.generate(images(bare), max_length=8)
