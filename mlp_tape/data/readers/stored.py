"""Arrays in files, paired by their names to features and labels before any of them is read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlp_tape.data.contents import PARTS, Array, Contents
from mlp_tape.data.readers import damage
from mlp_tape.data.readers.roles import Role, of_file, role
from mlp_tape.errors import DataError

Group = dict[str, dict[str, "Stored"]]  # arrays of a data set by part and kind
SAVE = "save it with numpy.savez('data.npz', x_train=..., y_train=..., x_test=..., y_test=...)"


@dataclass(frozen=True)
class Stored:
    """An array in a file that is not read yet.

    Attributes:
        path: the file.
        key: name of the array in the file; empty if it is the only one.
        shape: shape of the array, as the file declares it.
        load: reads the array.
        class_names: as in `Contents`.
        remarks: as in `Contents`.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    load: Callable[[], Array]
    class_names: Mapping[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.key or self.path.name


def contents(arrays: Iterable[Stored], source: Path, chosen: Path | None = None) -> Contents:
    """Reads the arrays that are features and labels by their names or those of their files.

    Args:
        arrays: arrays of one or several files.
        source: file or directory of the data.
        chosen: the file with one of the arrays that belong together, if there are more; None for all files.

    Raises:
        DataError: there is not one data set, but none or several, or it is incomplete or damaged.
    """
    arrays = list(arrays)
    groups: dict[str, Group] = {}
    again = []
    is_alone = len({each.path for each in arrays}) == 1  # the part in the name of a single file says nothing
    for each in arrays:
        by_key, by_file = role(each.key), of_file(each.path)
        if is_alone:
            by_file = Role(None, by_file.kind, "")
        part, kind = by_key.part or by_file.part or "", by_key.kind or by_file.kind
        if by_key.rest or kind is None:
            continue
        first = groups.setdefault(by_file.rest, {}).setdefault(part, {}).setdefault(kind, each)
        if first is not each:
            again.append(each.path)
    remarks = [f"there twice, and read once: {', '.join(path.name for path in again)}"] if again else []
    group = _chosen({name: _named(group) for name, group in groups.items()}, arrays, source, chosen)
    used = [each for xy in group.values() for each in xy.values()]
    class_names = {label: name for each in used for label, name in each.class_names.items()}
    if len(group.get("test", {"x": None, "y": None})) == 1:
        remarks.append(
            f"{next(iter(group.pop('test').values()))} has no labels and is not used as a test part"
        )
    parts = {part: _loaded(group[part]) for part in PARTS if part in group}
    said = dict.fromkeys([*remarks, *(remark for each in used for remark in each.remarks)])
    return Contents(parts, source, class_names, tuple(said))


def _named(group: Group) -> Group:
    """Renames a part without a name to `train`, unless there is one already."""
    unnamed = group.pop("", {})
    return {"train": unnamed} | group if unnamed else group


def _chosen(groups: dict[str, Group], arrays: list[Stored], source: Path, chosen: Path | None) -> Group:
    """Returns the only data set, or the one that contains an array of the file `chosen`."""
    complete = {name: group for name, group in groups.items() if len(group.get("train", {})) == 2}
    if chosen is not None:
        complete = {name: group for name, group in complete.items() if _contains(group, chosen)}
    if len(complete) > 1:
        first = [next(iter(group["train"].values())).path for group in complete.values()]
        raise DataError(
            f"{source} has {len(complete)} data sets: {', '.join(path.name for path in first[:6])}, ...",
            f"set dataset.path={first[0]}, or to another one of these files",
        )
    if complete:
        return next(iter(complete.values()))
    found = next((group for group in groups.values() if len(group) == 1 or "train" in group), {})
    missing = [f"{kind}_train" for kind in "xy" if kind not in found.get("train", {})]
    names = list(dict.fromkeys(str(each) for each in arrays))
    has = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    beside = "put the other files of the data set beside it, such as y_train.npy"
    hint = SAVE if any(each.key for each in arrays) else beside
    raise DataError(f"{source} has no {', '.join(missing)}; it has {has or 'nothing'}", hint)


def belong_together(path: Path, arrays: Iterable[Stored]) -> bool:
    """Whether others belong to a file with these arrays, as it has only x, only y, or only one part."""
    keys = [role(each.key) for each in arrays]
    is_complete = {key.kind for key in keys} >= {"x", "y"} and of_file(path).part is None
    return not is_complete and not any(key.part for key in keys)


def _contains(group: Group, path: Path) -> bool:
    return any(each.path == path for xy in group.values() for each in xy.values())


def _loaded(xy: dict[str, Stored]) -> tuple[Array, Array]:
    """Reads features and labels, if there are as many of both."""
    if "x" not in xy or "y" not in xy:
        raise DataError(f"{next(iter(xy.values()))} has no {'labels' if 'x' in xy else 'features'}", SAVE)
    x, y = xy["x"], xy["y"]
    if x.shape and y.shape and x.shape[0] != y.shape[0]:
        raise DataError(
            f"{x} has {x.shape[0]:,} rows and {y} {y.shape[0]:,}",
            "provide one label for each row of features",
        )
    with damage.named(x.path):
        features = np.asanyarray(x.load())
    with damage.named(y.path):
        return features, np.asanyarray(y.load())
