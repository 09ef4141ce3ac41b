"""Words and features as symbols of a dictionary."""

import pytest
from fairseq.data import Dictionary
from fairseq.tokenizer import tokenize_line
from hypothesis import given
from hypothesis import strategies as st

from fairseq_entmax.data.symbols import (
    feature_symbol,
    is_language,
    is_tag,
    language_of,
    language_symbol,
    symbols_to_word,
    word_to_symbols,
)

characters = st.characters(blacklist_categories=("Cs",), blacklist_characters="▁")


@given(st.text(characters, min_size=1))
def test_a_word_survives_fairseqs_lines(word):
    symbols = word_to_symbols(word)
    assert len(symbols) == len(word)
    assert tokenize_line(" ".join(symbols)) == symbols
    assert symbols_to_word(symbols) == word
    assert not any(is_tag(symbol) for symbol in symbols)


def test_white_space_has_symbols_of_its_own():
    assert word_to_symbols("a b\u00a0c") == ["a", "▁", "b", "▁A0", "c"]


@pytest.mark.parametrize("word", ["", "a▁b"], ids=["empty", "the space symbol"])
def test_words_without_symbols(word):
    with pytest.raises(ValueError, match=r"without characters|stands for a space"):
        word_to_symbols(word)


def test_tags():
    tags = [feature_symbol("PL"), feature_symbol("V.PTCP PRS"), language_symbol("north-frisian")]
    assert tags == ["<PL>", "<V.PTCP▁PRS>", "<lang:north-frisian>"]
    assert all(map(is_tag, tags))
    assert [is_language(tag) for tag in tags] == [False, False, True]
    assert language_of(tags[2]) == "north-frisian"


@pytest.mark.parametrize("feature", ["s", "/s", "pad", "unk", "lang:german"])
def test_features_whose_symbol_is_taken(feature):
    with pytest.raises(ValueError, match="has another meaning"):
        feature_symbol(feature)


def test_fairseqs_own_symbols_are_no_tags():
    specials = Dictionary().symbols
    assert len(specials) == 4 and not any(map(is_tag, specials))
