"""Recordings from file names, and a split that keeps them whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonlocalnet.sources import choose_val, recordings


@pytest.mark.parametrize(
    ("stem", "recording"),
    [
        ("v_ApplyEyeMakeup_g01_c02", "v_ApplyEyeMakeup_g01"),
        ("-9PmzQI8ZYp_000010_000020", "-9PmzQI8ZYp"),
        ("a_b-c_000010_000020", "a_b-c"),
        ("match_clip3", "match"),
        ("match-part-02", "match"),
        ("Match 7.Scene.12", "Match 7"),
        ("match_SEG0001", "match"),
        ("April_09_brush_hair_u_nm_np1_ba_goo_0", "April_09_brush_hair_u_nm_np1_ba_goo"),
        ("kitchen_0001", "kitchen"),
        ("kitchen (2)", "kitchen"),
        ("kitchen(2)", "kitchen"),
        ("cam2-14", "cam2"),
        ("230101_000010_000020", "230101"),
        # recordings of their own
        ("kitchen", None),
        ("kitchen2", None),
        ("12345", None),
        ("myclip3", None),
        ("clip_3", None),
        ("part_2", None),
        ("IMG_0042", None),
        ("Video (3)", None),
        ("clip_part2", None),
        ("jump_01", None),  # the class is called Jump
        ("J-u_m p 7", None),
    ],
)
def test_the_recording_is_read_from_the_name(stem: str, recording: str | None) -> None:
    assert recordings([stem, "something else"], "Jump") == [recording, None]


def test_numbers_only_count_where_all_would_be_one_recording() -> None:
    assert recordings(["leap_1", "leap_2", "leap_3"], "Jump") == [None, None, None]
    assert recordings(["leap_1", "leap_2", "hop_1"], "Jump") == ["leap", "leap", "hop"]
    # a word for a piece is no doubt, even then
    assert recordings(["leap_clip1", "leap_clip2"], "Jump") == ["leap", "leap"]
    assert recordings([], "Jump") == []


names = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 2)), min_size=1, max_size=40
)


@given(names, st.floats(0.05, 0.95), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_each_class_is_on_both_sides_where_recordings_allow(
    videos: list[tuple[str, int]], fraction: float, seed: int
) -> None:
    # recordings of one class each: then nothing but their number can stand in the way
    sources, labels = [f"{name}{label}" for name, label in videos], [label for _, label in videos]
    val = choose_val(sources, labels, fraction, seed)
    for label in set(labels):
        mine = {s for s, other in zip(sources, labels, strict=True) if other == label}
        assert mine - val, "training comes first"
        assert (len(mine) == 1) == (not mine & val)


def test_the_share_is_met_as_well_as_whole_recordings_allow() -> None:
    sources = [f"r{i:02d}" for i in range(50) for _ in range(4)]
    val = choose_val(sources, [0] * 200, 0.2, seed=0)
    assert sum(source in val for source in sources) == 40
    # one recording with nearly everything stays in training
    assert choose_val(["big"] * 50 + ["small"] * 10, [0] * 60, 0.2, seed=0) == {"small"}
    assert choose_val(["big"] * 50 + ["small"] * 10, [0] * 60, 0.2, seed=1) == {"small"}


def test_a_recording_of_two_classes_goes_to_one_side() -> None:
    # class 1 has two recordings and chooses first; class 0 gets along with what is left
    sources = ["x", "y", "a", "b", "c", "x", "y"]
    labels = [1, 1, 0, 0, 0, 0, 0]
    for seed in range(10):
        val = choose_val(sources, labels, 0.5, seed)
        assert len(val & {"x", "y"}) == 1
        assert (
            2 <= sum(s in val for s, label in zip(sources, labels, strict=True) if not label) <= 3
        )


def test_the_choice_depends_on_seed_and_names_not_on_order() -> None:
    sources = [f"r{i}" for i in range(20)]
    labels = [i % 2 for i in range(20)]
    first = choose_val(sources, labels, 0.2, seed=0)
    assert first == choose_val(sources[::-1], labels[::-1], 0.2, seed=0)
    assert any(first != choose_val(sources, labels, 0.2, seed) for seed in range(1, 4))
    assert choose_val(sources, labels, 0.2, seed=-1)
