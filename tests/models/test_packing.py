"""Rows that share a beginning."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.models.packing import aligned, attention_mask, branches, common_prefix, pack, packed_length
from vsel_platform.models.vlm import RenderedRow

IMAGE = 9


def row(ids, targets=()):
    index = np.full(len(ids), -1)
    index[list(targets)] = 0
    return RenderedRow(np.array(ids, dtype=np.int64), index)


rows = st.lists(st.integers(0, 2).map(lambda i: IMAGE if i == 2 else i), min_size=1, max_size=10).flatmap(
    lambda ids: st.sets(st.integers(1, max(1, len(ids) - 1))).map(
        lambda targets: row(ids, [t for t in targets if t < len(ids)])
    )
)
groups = st.lists(rows, min_size=1, max_size=3)


def test_the_prefix_ends_where_rows_differ():
    assert common_prefix([row([1, 2, 3]), row([1, 2, 4, 5])]) == 2
    assert common_prefix([row([1, 2]), row([1, 2, 4])]) == 2
    assert common_prefix([row([1]), row([2])]) == 0
    assert common_prefix([row([1, 2, 3])]) == 3


def test_one_row_is_packed_as_it_is():
    packed = pack([row([1, 2, 3], [2])], IMAGE)
    assert packed.input_ids.tolist() == [1, 2, 3]
    assert packed.branch.tolist() == [0, 0, 0]
    assert (packed.targets.tolist(), packed.before.tolist()) == ([2], [1])


def test_branches_follow_the_prefix_and_count_on_from_it():
    packed = pack([row([1, 2, 3, 4], [3]), row([1, 2, 5], [2])], IMAGE)
    assert packed.input_ids.tolist() == [1, 2, 3, 4, 5]
    assert packed.positions.tolist() == [0, 1, 2, 3, 2]
    assert packed.branch.tolist() == [0, 0, 1, 1, 2]
    assert packed.targets.tolist() == [3, 4]
    assert packed.before.tolist() == [2, 1]


@given(groups)
def test_every_row_is_found_again_along_its_branch(group):
    packed = pack(group, IMAGE)
    assert len(packed) == packed_length(group)
    for number, own in enumerate(group):
        places = np.flatnonzero((packed.branch == 0) | (packed.branch == number + 1))
        assert packed.input_ids[places].tolist() == own.input_ids.tolist()
        assert packed.positions[places].tolist() == list(range(len(own)))


@given(groups)
def test_targets_and_what_predicts_them_keep_their_tokens(group):
    packed = pack(group, IMAGE)
    expected = [(r.input_ids[t], r.input_ids[t - 1]) for r in group for t in np.flatnonzero(r.answer_index >= 0)]
    found = list(zip(packed.input_ids[packed.targets], packed.input_ids[packed.before], strict=True))
    assert found == expected


@given(groups)
def test_image_tokens_keep_their_number_within_the_row(group):
    packed = pack(group, IMAGE)
    for number, own in enumerate(group):
        places = (packed.branch == 0) | (packed.branch == number + 1)
        features = packed.feature[places]
        assert features[features >= 0].tolist() == list(range(int((own.input_ids == IMAGE).sum())))


@given(st.lists(groups, min_size=1, max_size=3))
def test_a_token_sees_exactly_the_past_of_its_own_row(batch):
    packed = [pack(group, IMAGE) for group in batch]
    length = max(map(len, packed))
    mask = attention_mask(packed, length)
    assert mask.any(axis=2).all()
    for own, seen in zip(packed, mask, strict=True):
        for place in range(len(own)):
            visible = np.flatnonzero(seen[place])
            assert own.positions[visible].tolist() == list(range(own.positions[place] + 1))
            assert set(own.branch[visible].tolist()) <= {0, own.branch[place]}


@given(st.lists(groups, min_size=1, max_size=3))
def test_aligned_branches_begin_at_one_place_and_rows_stay_whole(batch):
    packed = [pack(group, IMAGE) for group in batch]
    wide, width = aligned(packed)
    assert width == max(int((own.branch == 0).sum()) for own in packed)
    for group, before, own in zip(batch, packed, wide, strict=True):
        assert (own.branch[width:] > 0).all()
        assert (own.branch[:width] <= 0).all()
        for row, places in zip(group, own.places, strict=True):
            assert own.input_ids[places].tolist() == row.input_ids.tolist()
            assert own.positions[places].tolist() == list(range(len(row)))
        assert own.input_ids[own.targets].tolist() == before.input_ids[before.targets].tolist()
        assert own.input_ids[own.before].tolist() == before.input_ids[before.before].tolist()
        assert own.feature[own.branch >= 0].tolist() == before.feature.tolist()


@given(st.lists(groups, min_size=1, max_size=3))
def test_the_mask_behind_the_prefix_is_the_rest_of_the_whole_mask(batch):
    wide, width = aligned([pack(group, IMAGE) for group in batch])
    length = max(map(len, wide))
    whole = attention_mask(wide, length)
    assert (attention_mask(wide, length, width) == whole[:, width:]).all()
    # Before that place causal attention alone is right: no token of the prefix sees a branch or padding.
    prefix = branches(wide, length)[:, :width] == 0
    causal = np.tri(width, dtype=bool)
    for own, seen in zip(prefix, whole[:, :width, :width], strict=True):
        assert (seen[own] == causal[own]).all()
