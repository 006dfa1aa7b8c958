"""Formatting of counts and values: singular and plural, digits, names."""

import pytest

from mlp_tape.system import formatting


def test_noun_agrees_with_its_number() -> None:
    assert [formatting.count(n, "job") for n in (0, 1, 2, 1200)] == [
        "0 jobs",
        "1 job",
        "2 jobs",
        "1,200 jobs",
    ]
    assert [formatting.are(n) for n in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (1e6, "1e+06"),
        (1.0, "1"),
        (1_000_000, "1000000"),
        (1 / 3, "0.333333"),
        (None, "null"),
        (True, "true"),
        ([64, 32], "[64,32]"),
        ([0.1 + 0.2], "[0.3]"),
        ("relu", "relu"),
    ],
)
def test_value_has_at_most_six_significant_digits(value: object, text: str) -> None:
    assert formatting.value(value) == text


def test_different_values_have_different_texts_and_equal_ones_the_same() -> None:
    assert formatting.column([0.1 + 0.2, 0.1]) == ["0.3", "0.1"]
    assert formatting.column([0.1 + 0.2, 0.3, 0.5]) == ["0.30000000000000004", "0.3", "0.5"]
    assert formatting.column([1 / 3, 0.3333333, 1.0]) == ["0.333333333", "0.3333333", "1"]
    assert formatting.column([1, 1.0]) == ["1", "1"]
    assert formatting.column([[1 / 3], [0.3333333]]) == ["[0.333333333]", "[0.3333333]"]


def test_the_same_value_has_the_same_name_however_it_was_typed() -> None:
    names = [formatting.name([f"lr={typed}"], {"lr": 1e6}) for typed in ("1e6", "1000000.0", "1e+06")]
    assert names == ["lr=1e+06"] * 3
    settings = {"lr": 0.1 + 0.2, "loss": "mse", "model.hidden_sizes": [64, 32]}
    typed = ["+lr=0.30000000000000004", "loss=mse", "model.hidden_sizes=[64, 32]", "optimizer=adam"]
    assert formatting.name(typed, settings) == "lr=0.3 loss=mse model.hidden_sizes=[64,32] optimizer=adam"


def test_floats_in_a_list_of_values_are_formatted_and_nothing_else() -> None:
    assert formatting.numbers("lr=1e-2,.5,-0.30000000000000004,3") == "lr=0.01,0.5,-0.3,3"
    assert formatting.numbers("lr=0.3,0.30000000000000004") == "lr=0.3,0.30000000000000004"
    typed = "path=v1.50,data-1.50.npz,1.5.2,run_1e-2,1.50x"
    assert formatting.numbers(typed) == typed


def test_long_name_loses_the_groups_of_its_settings_and_then_its_middle() -> None:
    words = [f"optimizer.long_name_{i}={i}" for i in range(3)] + ["model.init_stddev=0.5"]
    assert formatting.name(words, {}) == "long_name_0=0 long_name_1=1 long_name_2=2 init_stddev=0.5"
    name = formatting.name([f"optimizer.long_name_{i}={i}" for i in range(20)], {})
    assert len(name) <= formatting.NAME
    assert name.startswith("long_name_0=0 long_name_1=1 ")
    assert " ... " in name
    assert name.endswith(" long_name_19=19")
    assert formatting.shorten(name + " x=1", formatting.NAME).count("...") == 1


def test_long_word_loses_its_middle() -> None:
    assert formatting.shorten("short", 20) == "short"
    assert formatting.shorten("/a/very/long/path/of/a/file.npz", 20) == "/a/very/l...file.npz"
