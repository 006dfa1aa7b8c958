"""What a run says at its end: how good its accuracy is for its data, and the one command to try next."""

import shlex
from dataclasses import dataclass

from mlp_tape.config.settings import DatasetSettings, Settings, flatten, format_value, options
from mlp_tape.system import program

WITHIN = 0.005  # of the accuracy of a command: the run is as good
GOOD = 0.95  # on data of one's own, about which nothing else is known


@dataclass(frozen=True)
class Step:
    """A command, and what it reached when it was measured with a full report, on two busy cores.

    Attributes:
        overrides: what to type after the name of the program and the data set.
        accuracy: test accuracy with seed 0, 0 to 1.
        seconds: duration of the whole command.
    """

    overrides: str
    accuracy: float
    seconds: int


@dataclass(frozen=True)
class Reference:
    """What is reached on a data set.

    Attributes:
        linear: test accuracy of a network without hidden layers, `model.hidden_sizes=[]`, with Adam and
            cross-entropy.
        steps: commands, each better than the one before it.
    """

    linear: float
    steps: tuple[Step, ...]


PLAIN = "augment.shift=0 augment.rotate=0"  # of 8 by 8 pixels, a shift by one loses too much
REFERENCES = {
    "mnist": Reference(
        0.926, (Step("+experiment=momentum", 0.983, 16), Step("+experiment=tuned", 0.992, 52))
    ),
    "mnist_5k": Reference(
        0.900, (Step("+experiment=momentum", 0.934, 6), Step("+experiment=tuned", 0.978, 10))
    ),
    "digits": Reference(
        0.886, (Step("+experiment=momentum", 0.900, 13), Step(f"+experiment=tuned {PLAIN}", 0.944, 17))
    ),
}
FOR_OWN_DATA = "optimizer=adam loss=cross_entropy model.init=he"


def closing(settings: Settings, accuracy: float, guessing: float) -> list[str]:
    """Returns the last lines of a run.

    Args:
        settings: settings of the run, with the name of the data set that was used.
        accuracy: test accuracy, 0 to 1.
        guessing: accuracy of always answering the most frequent class.
    """
    name = settings.dataset.name
    lines = [f"how good      {how_good(name, accuracy, guessing)}"]
    step = next_step(settings, name, accuracy)
    are_in_memory = name == "arrays" and settings.dataset.path is None  # of a notebook
    if step is not None and not are_in_memory:
        reached = f"   # {step.accuracy:.2f} in about {step.seconds} s" if step.seconds else ""
        words = [program.train(), *map(shlex.quote, of_data(settings.dataset)), step.overrides]
        lines.append(f"next step     {' '.join(words)}{reached}")
    return lines


def of_data(settings: DatasetSettings) -> list[str]:
    """Returns the overrides that select data and how they are understood."""
    default, found = DatasetSettings(), []
    for key, value in flatten(settings):
        if key == "offline" or value == getattr(default, key):
            continue
        is_option = key == "name" and value in options("dataset")
        text = value if isinstance(value, str) else format_value(value)
        found.append(f"dataset={text}" if is_option else f"dataset.{key}={text}")
    return found


def how_good(name: str, accuracy: float, guessing: float) -> str:
    """Returns a verdict on an accuracy, with what it is compared with."""
    reference = REFERENCES.get(name)
    if reference is None:
        verdict = "no better than" if accuracy <= guessing + WITHIN else "better than"
        return f"{verdict} always giving the same answer, which scores {guessing:.2f}"
    best = reference.steps[-1]
    if accuracy >= best.accuracy - WITHIN:
        verdict = "as good as the best settings known here"
    elif accuracy >= reference.linear:
        verdict = "better than a linear classifier"
    elif accuracy <= 2 * guessing:
        verdict = "hardly begun to learn"
    else:
        verdict = "not as good as a linear classifier"
    known = f"guessing {guessing:.2f}, a linear classifier {reference.linear:.2f}"
    return f"{verdict}; on {name}: {known}, {best.overrides} {best.accuracy:.2f}"


def next_step(settings: Settings, name: str, accuracy: float) -> Step | None:
    """Returns the command to try next; None after a good run."""
    reference = REFERENCES.get(name)
    if reference is not None:
        return next((step for step in reference.steps if accuracy < step.accuracy - WITHIN), None)
    untuned = settings.optimizer.name == "sgd" and settings.loss == "mse"
    return Step(FOR_OWN_DATA, 0.0, 0) if untuned and accuracy < GOOD else None
