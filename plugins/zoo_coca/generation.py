"""Search for the next tokens: greedy, sampling, and diverse beam search.

It knows nothing of images or towers: whatever gives logits for the tokens of growing rows can be searched. A row that
has ended is padded. Padding is never chosen, since it would read as the end; nor are ids that the tokenizer lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_coca.config import GenerationConfig
from zoo_core.errors import InputError
from zoo_core.text.tokenizer import Tokenizer

NEVER = float("-inf")


class Steps(Protocol):
    """Gives the logits of growing rows; `zoo_coca.decoder.CaptionSteps` is one."""

    def next_logits(self, ids: Tensor) -> Tensor:
        """Return logits `[R, V]` of the token after ids `[R, n]`, which follow those given before."""
        ...

    def repeat(self, times: int) -> None:
        """Turn each row into `times` rows, before the first token."""
        ...

    def take(self, rows: Tensor) -> None:
        """Go on with these of the rows, int64 `[R]`."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """The ids that mean something to the search. `size` is the largest id plus one, or None for all that have logits.

    They are those of the tokenizer that the model was trained with.
    """

    sot_id: int
    eot_id: int
    pad_id: int
    size: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Return that of a tokenizer.

        Raises:
            InputError: its captions have no start or no end.
        """
        if tokenizer.sot_id is None or tokenizer.eot_id is None:
            lacking = "start" if tokenizer.sot_id is None else "end"
            raise InputError(f"captions of this model's tokenizer have no {lacking} of text; give a vocabulary=")
        return cls(tokenizer.sot_id, tokenizer.eot_id, tokenizer.pad_id, tokenizer.vocab_size)


@dataclass(frozen=True)
class Prompts:
    """What the rows begin with: int64 ids `[B, P]`, of which the first `lengths` `[B]` of each row count."""

    ids: Tensor
    lengths: Tensor

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], vocabulary: Vocabulary, device: torch.device) -> Prompts:
        """Return prompts of rows of ids; each is read up to its end of text, or to the padding after it.

        Raises:
            InputError: a row does not begin with the start of text, or has padding inside.
        """
        prompts = [_prompt(number, row, vocabulary) for number, row in enumerate(rows)]
        longest = max(map(len, prompts), default=1)
        padded = [row + [vocabulary.pad_id] * (longest - len(row)) for row in prompts]
        ids = torch.tensor(padded, dtype=torch.int64, device=device).view(len(prompts), longest)
        return cls(ids, torch.tensor([len(row) for row in prompts], dtype=torch.int64, device=device))

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def shortest(self) -> int:
        """Length of the shortest."""
        return int(self.lengths.min())

    def rows(self, length: int, pad_id: int) -> Tensor:
        """Return the prompts, padded to `[B, length]`."""
        return F.pad(self.ids, (0, length - self.ids.shape[1]), value=pad_id)


def _prompt(number: int, row: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Return what a search goes on from: the start of text and what follows, without the end and its padding."""
    if not row or row[0] != vocabulary.sot_id:
        raise InputError(f"prompt {number} must begin with the start of text, id {vocabulary.sot_id}")
    words = list(row[1:])
    if vocabulary.eot_id in words:
        words = words[: words.index(vocabulary.eot_id)]
    while words and words[-1] == vocabulary.pad_id:
        words.pop()
    if vocabulary.pad_id in words:
        raise InputError(f"prompt {number} holds id {vocabulary.pad_id}, which is padding, before its end; rephrase it")
    return [row[0], *words]


def search(
    steps: Steps,
    prompts: Prompts,
    vocabulary: Vocabulary,
    options: GenerationConfig,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue rows.

    Args:
        steps: gives their logits.
        prompts: what they begin with, at least one id each.
        vocabulary: ids with a meaning.
        options: strategy, lengths and the like.
        generator: of the random numbers, for `top_k` and `top_p`; torch's global one where None.

    Returns:
        int64 ids `[B, L]` with L at most `max_length`: the prompt, what was found, the end of text, padding. A row
        that was cut has no end of text.

    Raises:
        InputError: a prompt leaves no room, or a generator is given where nothing is drawn.
    """
    if prompts.ids.shape[1] >= options.max_length:
        raise InputError(f"max_length = {options.max_length} leaves no room after {prompts.ids.shape[1]} ids of prompt")
    if generator is not None and options.strategy not in ("top_k", "top_p"):
        raise InputError(f"strategy '{options.strategy}' draws nothing: leave the generator out")
    if not len(prompts):
        return prompts.ids
    if options.strategy == "beam":
        return _Beams(steps, prompts, vocabulary, options).search()
    return _one_by_one(steps, prompts, vocabulary, options, generator)


def _one_by_one(
    steps: Steps,
    prompts: Prompts,
    vocabulary: Vocabulary,
    options: GenerationConfig,
    generator: torch.Generator | None,
) -> Tensor:
    rows = prompts.rows(options.max_length, vocabulary.pad_id)
    seen, length = 0, prompts.shortest
    ended = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    while length < options.max_length and not bool(ended.all()):
        logits = allowed(steps.next_logits(rows[:, seen:length]), rows[:, :length], vocabulary, options)
        if options.strategy == "greedy":
            tokens = logits.argmax(dim=1)
        else:
            tokens = torch.multinomial(distribution(logits, options), 1, generator=generator)[:, 0]
        tokens = tokens.masked_fill(ended, vocabulary.pad_id)
        rows[:, length] = torch.where(prompts.lengths > length, rows[:, length], tokens)
        ended |= rows[:, length] == vocabulary.eot_id
        seen, length = length, length + 1
    return rows[:, :length]


def allowed(logits: Tensor, rows: Tensor, vocabulary: Vocabulary, options: GenerationConfig) -> Tensor:
    """Return logits `[R, V]` in float32, penalised, and minus infinity for what must not follow `rows` `[R, n]`."""
    logits = logits.float()
    repeated = logits.gather(1, rows)
    penalty = options.repetition_penalty
    logits = logits.scatter(1, rows, torch.where(repeated > 0, repeated / penalty, repeated * penalty))
    if vocabulary.pad_id != vocabulary.eot_id:
        logits[:, vocabulary.pad_id] = NEVER
    if vocabulary.size is not None:
        logits[:, vocabulary.size :] = NEVER
    if rows.shape[1] < options.min_length:
        logits[:, vocabulary.eot_id] = NEVER
    return logits


def distribution(logits: Tensor, options: GenerationConfig) -> Tensor:
    """Return the probabilities `[R, V]` that `top_k` or `top_p` draws from."""
    probabilities, tokens = (logits / options.temperature).softmax(dim=1).sort(dim=1, descending=True, stable=True)
    match options.strategy:
        case "top_k":
            is_candidate = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) < options.top_k
        case "top_p":
            is_candidate = probabilities.cumsum(dim=1) - probabilities < options.top_p  # the first always is
        case _:
            raise InputError(f"strategy '{options.strategy}' draws nothing")
    probabilities = probabilities * is_candidate
    return torch.zeros_like(logits).scatter(1, tokens, probabilities / probabilities.sum(dim=1, keepdim=True))


class _Beams:
    """Beam search in groups of `k` beams: each keeps its best `k` rows, and the best that has ended.

    Shapes are `[B, G, k]` for images, groups and beams. A row ends where the end of text is among the best `k` of all
    continuations; a group is done when `k` rows have ended, so that one beam is greedy search.
    """

    def __init__(self, steps: Steps, prompts: Prompts, vocabulary: Vocabulary, options: GenerationConfig) -> None:
        self.steps, self.prompts, self.vocabulary, self.options = steps, prompts, vocabulary, options
        self.groups, self.width = options.num_beam_groups, options.num_beams // options.num_beam_groups
        shape = (len(prompts), self.groups, self.width)
        device = prompts.ids.device
        self.length = prompts.shortest
        self.rows = prompts.rows(options.max_length, vocabulary.pad_id).repeat_interleave(options.num_beams, dim=0)
        self.scores = torch.full(shape, NEVER, device=device)
        self.scores[..., 0] = 0  # the others would repeat the first
        self.ended = torch.zeros(shape[:2], dtype=torch.int64, device=device)
        self.best_scores = torch.full(shape[:2], NEVER, device=device)
        self.best_rows = self.rows.view(*shape, -1)[:, :, 0].clone()  # [B, G, L]
        self.best_lengths = torch.zeros(shape[:2], dtype=torch.int64, device=device)

    def search(self) -> Tensor:
        """Return the best row of each image, as `search` does."""
        self.steps.repeat(self.options.num_beams)
        seen = 0
        while self.length < self.options.max_length and not bool(self._done().all()):
            logits = self.steps.next_logits(self.rows[:, seen : self.length])
            seen = self.length
            self._extend(self._log_probabilities(logits))
        self._cut()
        group = self.best_scores.argmax(dim=1)
        image = torch.arange(len(group), device=group.device)
        return self.best_rows[image, group, : int(self.best_lengths[image, group].max())]

    def _done(self) -> Tensor:
        return self.ended >= self.width

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """Return log-probabilities `[B, G, k, V]`; rows still in their prompt have one continuation, which is free."""
        free = allowed(logits, self.rows[:, : self.length], self.vocabulary, self.options).log_softmax(dim=1)
        is_prompted = self.prompts.lengths.repeat_interleave(self.options.num_beams) > self.length
        prompted = torch.full_like(free, NEVER).scatter(1, self.rows[:, self.length, None], 0.0)
        return torch.where(is_prompted[:, None], prompted, free).view(*self.scores.shape, -1)

    def _extend(self, log_probabilities: Tensor) -> None:
        """Let every beam grow by one token."""
        images, _, _, tokens = log_probabilities.shape
        chosen = log_probabilities.new_zeros(images, tokens)  # how often earlier groups took each token
        parents: list[Tensor] = []
        added: list[Tensor] = []
        for group in range(self.groups):
            parent, token = self._extend_group(group, log_probabilities[:, group], chosen)
            searching = self.scores[:, group].isfinite() & ~self._done()[:, group, None]
            chosen.scatter_add_(1, token, searching.to(chosen.dtype))
            parents.append(parent)
            added.append(token)
        rows = torch.stack(parents, dim=1).flatten()
        self.rows = self.rows[rows]
        self.rows[:, self.length] = torch.stack(added, dim=1).flatten()
        self.steps.take(rows)
        self.length += 1

    def _extend_group(self, group: int, log_probabilities: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows `[B, k]` that a group goes on with, and their next tokens `[B, k]`."""
        images, width, tokens = log_probabilities.shape
        totals = (self.scores[:, group, :, None] + log_probabilities).flatten(1)  # [B, k * V]
        penalty = self.options.diversity_penalty * chosen.repeat(1, width)
        ranked, picks = (totals - penalty).topk(2 * width, dim=1)  # enough for k that do not end
        totals = totals.gather(1, picks)
        first = (torch.arange(images, device=picks.device) * self.groups + group) * width
        parents, token = first[:, None] + picks // tokens, picks % tokens
        ends = token == self.vocabulary.eot_id
        self._end(group, parents[:, :width], totals[:, :width].masked_fill(~ends[:, :width], NEVER))
        live = ranked.masked_fill(ends, NEVER).topk(width, dim=1).indices
        self.scores[:, group] = totals.masked_fill(ends, NEVER).gather(1, live)
        return parents.gather(1, live), token.gather(1, live)

    def _end(self, group: int, parents: Tensor, totals: Tensor) -> None:
        """Keep the best of the rows `parents` `[B, k]` that end here; `totals` of others are minus infinity."""
        open_ = ~self._done()[:, group]
        normed = self._normed(totals, self.length + 1)
        best, beam = normed.max(dim=1)
        rows = self.rows[parents.gather(1, beam[:, None])[:, 0]]
        rows[:, self.length] = self.vocabulary.eot_id
        self._keep(group, open_ & (best > self.best_scores[:, group]), best, rows, self.length + 1)
        self.ended[:, group] += totals.isfinite().sum(dim=1) * open_

    def _cut(self) -> None:
        """Let the rows that have not ended compete with those that have."""
        rows = self.rows.view(*self.scores.shape, -1)
        for group in range(self.groups):
            best, beam = self._normed(self.scores[:, group], self.length).max(dim=1)
            better = ~self._done()[:, group] & (best > self.best_scores[:, group])
            image = torch.arange(len(beam), device=beam.device)
            self._keep(group, better, best, rows[image, group, beam], self.length)

    def _keep(self, group: int, better: Tensor, scores: Tensor, rows: Tensor, length: int) -> None:
        self.best_scores[:, group] = torch.where(better, scores, self.best_scores[:, group])
        self.best_rows[:, group] = torch.where(better[:, None], rows, self.best_rows[:, group])
        self.best_lengths[:, group] = torch.where(better, length, self.best_lengths[:, group])

    def _normed(self, totals: Tensor, length: int) -> Tensor:
        """Return totals `[B, k]` of rows of `length` ids, over the number of ids after the prompt."""
        count = (length - self.prompts.lengths).clamp(min=1)
        return totals / count[:, None] ** self.options.length_penalty
