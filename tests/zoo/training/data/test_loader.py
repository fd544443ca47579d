import os
import pickle
import re
import signal
import time
from collections import Counter

import pytest
import torch

from support.datasets import opened
from zoo.training.data.batch import BadSampleCount
from zoo.training.data.loader import Loader, worker_deaths, workers_for
from zoo_core.errors import ConfigError, DataError, PluginError, TrainingError
from zoo_core.models.image_inputs import ImageModality
from zoo_core.plugin import IMAGE
from zoo_images.config import NaFlexImageConfig
from zoo_images.naflex import NaFlexPreprocessor

MADE = {"type": "made"}


def batches(data, **options):
    return list(Loader(data, **{"workers": 0, "steps": 7} | options))


def equal(ours, theirs):
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert (left.step, left.keys, left.bad) == (right.step, right.keys, right.bad)
        for name in left.inputs:
            assert torch.equal(left.inputs[name], right.inputs[name])
        for name in ("ids", "weights"):
            ours_too, theirs_too = getattr(left, name), getattr(right, name)
            assert (ours_too is None) == (theirs_too is None)
            assert ours_too is None or torch.equal(ours_too, theirs_too)


LIVELY = {"type": "made", "captions": 3, "bad": [4, 11], "ids": True, "sample_weights": True}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_very_batches_of_one_process(workers):
    data = opened(LIVELY, MADE | {"weight": 0.5})
    equal(batches(data, workers=workers), batches(data))


def test_threads_of_the_process_that_trains_change_no_batch():
    data, threads = opened(LIVELY), torch.get_num_threads()
    expected = batches(data, workers=1)
    torch.set_num_threads(2)
    try:
        equal(batches(data), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("start", [1, 4, 6])
def test_a_loader_goes_on_at_any_step_as_if_it_had_never_stopped(start):
    data = opened(LIVELY)
    equal(batches(opened(LIVELY), start=start), batches(data)[start:])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_batches_of_one(count):
    data = opened(LIVELY, MADE)
    whole = batches(data)
    shared = [batches(data, rank=rank, count=count) for rank in range(count)]
    for step, batch in enumerate(whole):
        parts = [shares[step] for shares in shared]
        assert [key for part in parts for key in part.keys] == batch.keys
        assert torch.equal(torch.cat([part.inputs["image"] for part in parts]), batch.inputs["image"])
        assert torch.equal(torch.cat([part.ids for part in parts]), batch.ids)


def test_augmentation_draws_anew_for_each_pass():
    data = opened(MADE | {"size": 8}, shuffle="none")
    reader = data.reader()
    seeds = []

    class Spy:
        def prepare_one(self, processor, raw, *, generator):
            seeds.append(generator.initial_seed())
            return raw

        def check_raw(self, raw, limits): ...

        def collate(self, processor, prepared):
            return torch.zeros(len(prepared))

    object.__setattr__(data.preparer, "modalities", {"image": (Spy(), None), "text": (Spy(), None)})
    for step in (0, 1, 0):
        reader.batch(step)
    assert len(set(seeds)) == 32 and seeds[:16] == seeds[32:]


def test_reading_leaves_the_global_generator_alone():
    data = opened(MADE)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for workers in (0, 1):
        batches(data, workers=workers, steps=2)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("choose", ["sample", "first", "all"])
def test_captions_are_chosen_as_the_recipe_says(choose):
    data = opened(MADE | {"captions": 3, "choose": choose}, augment=False)
    captions = {}
    for batch in batches(data, steps=15):
        for key, ids in zip(batch.keys, batch.inputs["text"].tolist(), strict=True):
            captions.setdefault(key.row, set()).add(tuple(ids))
    counts = {len(texts) for texts in captions.values()}
    assert len(captions) == (120 if choose == "all" else 40)
    assert counts == {1} if choose != "sample" else max(counts) >= 2
    if choose == "all":
        assert len(set.union(*captions.values())) == 120
        (batch,) = batches(data, steps=1)
        rows = [key.row // 3 for key in batch.keys]
        assert [a == b for a in batch.ids.tolist() for b in batch.ids.tolist()] == [a == b for a in rows for b in rows]


def test_ids_are_there_where_rows_may_be_positives_of_each_other():
    assert batches(opened(MADE))[0].ids is None and batches(opened(MADE))[0].weights is None
    batch = batches(opened(LIVELY))[0]
    assert batch.ids.dtype == torch.int64 and batch.weights.dtype == torch.float32
    by_id = {}
    for key, number in zip(batch.keys, batch.ids.tolist(), strict=True):
        by_id.setdefault(number, set()).add(key.row // 2)
    assert all(len(pairs) == 1 for pairs in by_id.values())
    assert batch.weights.tolist() == [1 + key.row for key in batch.keys]
    mixed = batches(opened(LIVELY, LIVELY), steps=20)
    ids = {
        (key.dataset, key.row // 2): number for b in mixed for key, number in zip(b.keys, b.ids.tolist(), strict=True)
    }
    assert len(set(ids.values())) == len(ids)  # one id of two data sets is two ids


def test_bad_samples_are_replaced_by_a_pure_rule_and_listed():
    data = opened(MADE | {"bad": [3, 17, 30]})
    seen = batches(data, steps=5)
    bad = [entry for batch in seen for entry in batch.bad]
    assert {entry.key.row for entry in bad} == {3, 17, 30}
    assert {(entry.location, entry.reason) for entry in bad} >= {("made:3", "it is bad")}
    rows = [key.row for batch in seen for key in batch.keys]
    assert len(rows) == 40 and not {3, 17, 30} & set(rows)
    assert all(len(set(batch.keys)) == 8 for batch in seen)  # none of the rest of its batch
    equal(batches(opened(MADE | {"bad": [3, 17, 30]}), steps=5), seen)


def test_too_many_bad_samples_end_a_run():
    (batch,) = [batch for batch in batches(opened(MADE | {"bad": [3]}), steps=5) if batch.bad]
    count = BadSampleCount(0.01)
    for _ in range(124):
        count.add(batch)
    message = r"125 of 1,000 samples cannot be used, more than data.bad_samples.limit allows \(0.01\); the last of them: made:3: it is bad"
    with pytest.raises(DataError, match=message):
        count.add(batch)
    allowed = BadSampleCount(0.2)
    for _ in range(200):
        allowed.add(batch)
    assert (allowed.bad, allowed.seen) == (200, 1600)


def test_where_nothing_can_be_used_the_loader_says_so():
    data = opened(MADE | {"size": 40})
    data.sources[0].config = data.sources[0].config.model_copy(update={"bad": list(range(40))})
    for workers in (0, 1):
        with pytest.raises(DataError, match="100 samples in a row cannot be used; the last of them: made:"):
            batches(data, workers=workers)


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ([MADE], {"batch": 64}, "0 steps: 40 samples do not fill a batch of 64; set batch.size to 40 at most"),
        ([MADE | {"size": 0}], {}, "data set 0 has no sample"),
        ([MADE | {"size": 0}, MADE], {}, "data set 0 has no sample"),
        (
            [MADE | {"bad": list(range(16))}],
            {},
            "data.train[0]: none of the first 16 samples can be used; made:0: it is bad",
        ),
        (
            [MADE, MADE | {"broken": "no text"}],
            {},
            "data.train[1]: none of the first 16 samples can be used; made:0: has no text; it has image",
        ),
        (
            [MADE | {"broken": "nan"}],
            {},
            "data.train[0]: none of the first 16 samples can be used; made:0: its weight is nan; expected a number from 0",
        ),
        (
            [MADE],
            {"filter": {"min_text": 500}},
            "data.train[0]: none of the first 16 samples can be used; made:0: the caption has 19 characters, fewer than 500",
        ),
        (
            [MADE],
            {"filter": {"min_size": 17}},
            "data.train[0]: none of the first 16 samples can be used; made:0: the image has 20 x 16 pixels, less than 17 on a side",
        ),
        ([MADE], {"part": "validation"}, "data.validation names no data set"),
    ],
)
def test_data_that_cannot_be_used_is_refused_before_the_first_step(train, options, message):
    with pytest.raises(DataError) as error:
        opened(*train, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("error", "sample 0 failed: ZeroDivisionError: it divides"),
        ("ids", "a sample has the id '0', but has_ids is False"),
    ],
)
def test_a_data_set_that_breaks_its_promise_is_named(broken, message):
    with pytest.raises(PluginError, match=rf"dataset 'made' of acme 1.0: {re.escape(message)}"):
        opened(MADE | {"broken": broken})


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(DataError, match="a batch of 8 cannot be shared by 3 processes; nearest: 6 or 9"):
        Loader(opened(MADE), steps=1, count=3)


def test_streams_and_data_sets_with_an_index_do_not_mix():
    with pytest.raises(ConfigError, match="a stream has no place in an exact order"):
        opened(MADE, {"type": "flow"})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_batches_without_end(workers):
    data = opened({"type": "flow"}, {"type": "flow", "size": 60, "weight": 3})
    assert (data.resume, data.rows, data.steps_per_epoch) == ("approximate", None, None)
    seen = batches(data, workers=workers, steps=20)
    assert [batch.step for batch in seen] == list(range(20))
    assert {key.dataset for batch in seen for key in batch.keys} == {0, 1}
    assert all(batch.inputs["image"].shape == (8, 3, 8, 8) for batch in seen)
    assert all(len(set(batch.ids.tolist())) == 8 for batch in seen)


def test_a_stream_that_has_too_little_for_its_readers_says_so():
    with pytest.raises(DataError, match="data set 0 gives no sample to reader 1 of 2; fewer workers, or more shards"):
        batches(opened({"type": "flow", "size": 1}), workers=2)


def test_validation_takes_samples_as_they_lie():
    data = opened(MADE, validation=[MADE | {"size": 11, "captions": 2}], part="validation", batch=4)
    seen = batches(data, steps=data.steps_per_epoch)
    assert [key.row for batch in seen for key in batch.keys] == list(range(8))
    equal(batches(data, steps=2), seen)
    assert opened(MADE, validation=[MADE | {"size": 3}], part="validation", batch=4).batch == 3


def test_several_sets_of_validation_are_passed_over_together():
    data = opened(MADE, validation=[MADE | {"size": 30}, MADE | {"size": 10}], part="validation", batch=4)
    assert data.steps_per_epoch == 10
    counts = Counter(key.dataset for batch in batches(data, steps=10) for key in batch.keys)
    assert abs(counts[0] - 30) < 6


def test_patches_of_images_of_any_shape_are_collated_and_moved():
    data = opened(MADE)
    patches = NaFlexPreprocessor(NaFlexImageConfig(patch_size=4, image_seq_len=9), image_size=(8, 8), train=True)
    object.__setattr__(data.preparer, "modalities", {"image": (ImageModality(IMAGE), patches)})
    (whole,) = batches(data, steps=1)
    parts = [batches(data, steps=1, rank=rank, count=2)[0] for rank in (0, 1)]
    sizes = [part.inputs["image"]["patches"].shape[1] for part in parts]
    joined = torch.cat([part.inputs["image"]["patch_coord"][:, : min(sizes)] for part in parts])
    assert torch.equal(joined, whole.inputs["image"]["patch_coord"][:, : min(sizes)])
    assert whole.to("meta").inputs["image"]["patches"].device.type == "meta"


def test_a_reader_survives_pickling():
    data = opened(LIVELY, MADE | {"block": 7}, shuffle="window", window_blocks=2)
    reader = pickle.loads(pickle.dumps(data.reader()))
    equal([reader.batch(3)], [data.reader().batch(3)])


def test_blocks_of_samples_become_blocks_of_rows():
    data = opened(MADE | {"captions": 3, "choose": "all", "block": 10}, shuffle="window", window_blocks=1, batch=30)
    for step in range(4):
        assert len({key.row // 30 for key in data.order.rows(step)}) == 1


def test_a_digest_names_each_data_set():
    assert list(opened(MADE, MADE).digest()) == ["train[0]", "train[1]"]


def test_a_worker_that_dies_is_an_error_that_says_what_to_do():
    loader = Loader(opened(MADE), steps=10_000, workers=1)
    message = r"a worker that reads data died (before|at) step \d+ .* set fewer data.workers"
    with pytest.raises(TrainingError, match=message), worker_deaths("at step 2"):
        for batch in loader:
            if batch.step == 2:
                import multiprocessing

                for child in multiprocessing.active_children():
                    os.kill(child.pid, signal.SIGKILL)
                    time.sleep(0.2)


def test_workers_outlive_the_signal_that_ends_a_run():
    import multiprocessing

    seen = 0
    for batch in Loader(opened(MADE), steps=12, workers=2):
        if batch.step == 0:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGTERM)
                os.kill(child.pid, signal.SIGINT)
        seen += 1
    assert seen == 12


def test_workers_are_as_many_as_there_are_cores_to_spare(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert workers_for(torch.device("cuda")) == 11 and workers_for(torch.device("cpu")) == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert workers_for(torch.device("cuda")) == 2 and workers_for(torch.device("cpu")) == 0


def test_the_wait_for_a_batch_is_measured():
    assert all(0 < batch.wait < 60 for batch in batches(opened(MADE), steps=2))


def test_a_worker_uses_one_thread():
    class Asking(torch.utils.data.Dataset):
        def __getitems__(self, step):
            return torch.get_num_threads(), os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"]

    loader = Loader(opened(MADE), steps=1, workers=1)
    object.__setattr__(loader.data, "reader", lambda **_: Asking())
    assert next(iter(loader._loader())) == (1, "1", "false")
