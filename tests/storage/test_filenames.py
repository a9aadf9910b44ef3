"""Words that others wrote never become a path out of the folder asked for."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evatok.storage.filenames import file_name


@pytest.mark.parametrize(
    "words", ["walk", "Apply Eye Makeup", "00012-Übung", "freedoom@1", "a.b-c_d", "名前", "tai chi (slow)"]
)
def test_names_as_people_give_them_stay(words):
    assert file_name(words) == words


@pytest.mark.parametrize(
    "words",
    ["../../x", "/etc/x", "..", ".", "", "a/../../b", "C:\\x", "..\\x", "a\0b", "a\nb", ".hidden", "~/x", "\ud800"],
)
def test_paths_become_names(words, tmp_path):
    place = tmp_path / "asked" / file_name(words)
    place.mkdir(parents=True)
    assert [path.name for path in (tmp_path / "asked").iterdir()] == [file_name(words)]
    assert [path.name for path in tmp_path.iterdir()] == ["asked"]


@given(st.text(st.characters(max_codepoint=sys.maxunicode), max_size=300))
def test_every_text_is_one_name(words):
    name = file_name(words)
    assert name
    assert not name.startswith(".")
    assert not set(name) & set("/\\\0:")
    assert len(name.encode()) <= 121
    assert file_name(name) == name
