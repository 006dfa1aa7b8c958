"""Misspelt settings, groups and options, generated from all that exist: the hint works when it is typed."""

import random
import shlex
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import ROOT, sample
from hints import alternatives
from mlp_tape.cli import composition
from mlp_tape.config import suggestions, validation
from mlp_tape.config.settings import Settings, flatten, groups
from mlp_tape.errors import ConfigError

CONF = ROOT / "conf"
VALUES = [
    "0.25",
    "7",
    "true",
    "false",
    "8.5",
    "[7,9]",
    "[lr,seed]",
    "{team: x}",
    "validation/loss",
    "[seconds,parameters]",
    "some_text",
]
DEFAULTS = dict(flatten(Settings()))


@dataclass(frozen=True)
class Typo:
    """A misspelt command line.

    Attributes:
        kind: what is wrong.
        typed: the override as typed.
        before: correct overrides before it.
        correct: the correct command line.
    """

    kind: str
    typed: str
    before: tuple[str, ...]
    correct: tuple[str, ...]


def value_of(key: str) -> str:
    """Returns a valid value of a setting that is not its default."""
    names = suggestions.names_of(dict(suggestions.rules())[key])
    return next(
        value
        for value in (*names[1:], *VALUES)
        if validation.accepts(key, value) and value != suggestions.format_value(DEFAULTS[key])
    )


def misspelt(name: str, chosen: random.Random, every: bool) -> Iterator[tuple[str, str]]:
    """Yields kind and text of misspellings of a name: at each position, or at one of each kind."""
    letters = [i for i, letter in enumerate(name) if letter.isalpha()]
    found: dict[str, list[str]] = {"left out": [], "doubled": [], "replaced": [], "swapped": []}
    for i in letters:
        other = chosen.choice([letter for letter in string.ascii_lowercase if letter != name[i]])
        found["left out"].append(name[:i] + name[i + 1 :])
        found["doubled"].append(name[:i] + name[i] + name[i:])
        found["replaced"].append(name[:i] + other + name[i + 1 :])
        if i + 1 in letters and name[i] != name[i + 1]:
            found["swapped"].append(name[:i] + name[i + 1] + name[i] + name[i + 2 :])
    for kind, texts in found.items():
        for text in texts if every else texts and [chosen.choice(texts)]:
            yield kind, text
    yield "wrong case", name.upper()
    if "_" in name:
        yield "- for _", name.replace("_", "-")


def of_settings(every: bool) -> Iterator[Typo]:
    """Yields misspellings of the key of each setting."""
    chosen = random.Random(21)
    for key, rule in suggestions.rules():
        value, (group, _, leaf) = value_of(key), key.rpartition(".")
        users, required = rule.metadata["by_option"], suggestions.REQUIRED.get(key)
        correct = [f"{group}={next(iter(users))}"] if users else []
        is_option = leaf == "name" and group in groups()
        correct += [f"{group}={value}" if is_option else f"{key}={value}", *([required] if required else [])]
        kinds = [*misspelt(key, chosen, every), *([("last part", leaf)] if group else [])]
        for kind, text in kinds:
            yield Typo(kind, f"{text}={value}", (), tuple(correct))
        if users:  # the key is right, but the chosen option does not use it
            yield Typo("other option", f"{key}={value}", (), tuple(correct))
            right = [name for name in users if name != next(iter(users))]
            for name in right:
                before = f"{group}={name}"
                for kind, text in misspelt(key, chosen, every=False):
                    yield Typo(kind, f"{text}={value}", (before,), (before, f"{key}={value}"))


def of_options(every: bool) -> Iterator[Typo]:
    """Yields misspellings of each group, and of each of its options."""
    chosen = random.Random(21)
    for group, names in suggestions.all_options().items():
        plus = "+" if group in suggestions.ADDED else ""
        for name in names:
            correct = (f"{plus}{group}={name}",)
            for kind, text in misspelt(name, chosen, every):
                yield Typo(kind, f"{plus}{group}={text}", (), correct)
            if plus:
                yield Typo("no plus", f"{group}={name}", (), correct)
            for kind, text in misspelt(group, chosen, every):
                yield Typo(kind, f"{plus}{text}={name}", (), correct)
                if plus:
                    yield Typo(f"{kind}, no plus", f"{text}={name}", (), correct)


def of_values(every: bool) -> Iterator[Typo]:
    """Yields misspellings of the values of settings that accept only some."""
    chosen = random.Random(21)
    for key, rule in suggestions.rules():
        group, _, leaf = key.rpartition(".")
        is_option = leaf == "name" and group in groups()
        for name in suggestions.names_of(rule):
            needed = (
                [f"{group}={next(iter(rule.metadata['by_option']))}"] if rule.metadata["by_option"] else []
            )
            correct = [f"{group}={name}"] if is_option else [*needed, f"{key}={name}"]
            for kind, text in misspelt(name, chosen, every):
                if text not in suggestions.names_of(rule):  # such as adam for adamw
                    yield Typo(kind, f"{key}={text}", tuple(needed), tuple(correct))


def settings(words: list[str]) -> Settings | None:
    try:
        return composition.settings_of(CONF, words)
    except ConfigError:
        return None


def tried(typos: list[Typo]) -> Counter[str]:
    """Types each misspelt line and then its hint; returns the numbers of outcomes."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    meanings: dict[tuple[str, ...], Any] = {}
    for typo in typos:
        if typo.correct not in meanings:
            meanings[typo.correct] = settings(list(typo.correct))
        meaning = meanings[typo.correct]
        if meaning is None:  # a plug-in that is not installed
            outcomes["not installed"] += 1
            continue
        try:
            found = composition.settings_of(CONF, [*typo.before, typo.typed])
        except ConfigError as error:
            lines = alternatives(error.hint)
        else:
            outcomes["valid, as the misspelling is another name" if found != meaning else "valid"] += 1
            continue
        results = [settings([*(word for word in typo.before if word not in line), *line]) for line in lines]
        if meaning in results and None not in results:
            outcomes["works" if len(lines) == 1 else "works, one of several that are offered"] += 1
        else:
            outcomes["wrong"] += 1
            wrong.append(f"{shlex.join([*typo.before, typo.typed])}: {error_of(typo)}")
    print(
        f"\n{sum(outcomes.values())} misspelt lines: "
        + ", ".join(f"{n} {what}" for what, n in outcomes.items())
    )
    assert not wrong, "\n".join(wrong)
    return outcomes


def error_of(typo: Typo) -> str:
    with pytest.raises(ConfigError) as error:
        composition.settings_of(CONF, [*typo.before, typo.typed])
    return error.value.hint


MISSPELLINGS = {"settings": of_settings, "options": of_options, "values": of_values}


@pytest.mark.parametrize("of", sample(MISSPELLINGS, "options"))
def test_the_hint_for_a_misspelt_name_works_when_it_is_typed(of: str) -> None:
    typos = list(dict.fromkeys(MISSPELLINGS[of](every=False)))
    tried(random.Random(21).sample(typos, 20))


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("of", MISSPELLINGS)
def test_the_hint_works_for_one_misspelling_of_each_kind_of_each_name(of: str) -> None:
    tried(list(dict.fromkeys(MISSPELLINGS[of](every=False))))


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("of", MISSPELLINGS)
def test_the_hint_works_wherever_in_a_name_the_misspelling_is(of: str) -> None:
    tried(list(dict.fromkeys(MISSPELLINGS[of](every=True))))
