"""Rows: what tells the networks of a report apart, and in which part they differ.

A row of a table stands for networks that are alike in all but their seed. Which fields tell two
rows apart is found by comparing the configs of all networks.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

from invariance_jax import spec
from invariance_jax.augment import NAMES
from invariance_jax.config import TRAINED_FIELDS, TRAINING_FIELDS, WEIGHTS_LABEL
from invariance_jax.errors import UserError

UNTRAINED = "untrained"
MODEL, WEIGHTS, AUGMENTATION = "model.name", "model.weights", "augment"
NO_AUGMENTATION = ("none",)
# The option of an augmentation that is a path.
_FILE = "file"

Kind = Literal["untrained", "imported", "trained"]
Part = Literal["architecture", "training", "data", "augmentation", "recipe", "subset"]

_SUBSET, _CLASSES = "data.subset_seed", "data.classes"
_DATA = ("data.name", "data.train_split", "data.label_feature", _CLASSES, "data.fraction")
_PARTS: Mapping[str, Part] = {
    MODEL: "architecture",
    AUGMENTATION: "augmentation",
    _SUBSET: "subset",
    **dict.fromkeys(_DATA, "data"),
}
_STEPS = "train.steps"
# The seed is averaged over, and on what accuracy is measured trains nothing.
_COUNTED = TRAINING_FIELDS - {"seed", "data.validation_split"}
# Without training, architecture and input count; which classes are seen is the measurement's.
_SEEN = {MODEL} | (_COUNTED - TRAINED_FIELDS - {"data.classes", "data.label_feature"})

# How the value of a field is written where it tells rows apart, others after their name; "" for
# what needs no word.
_WRITTEN: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys((MODEL, AUGMENTATION, "model.dtype", "data.train_split"), str),
    **dict.fromkeys(("optimizer.name", "optimizer.schedule", "train.loss"), str),
    WEIGHTS: lambda file: file and f"from {file}",
    "data.fraction": lambda share: "" if share == 1 else f"{100 * share:g}% of data",
    _CLASSES: lambda classes: classes and _of_classes(classes),
    _SUBSET: "subset {}".format,
    _STEPS: "{} steps".format,
    "data.image_size": "{} px".format,
    "train.batch_size": "batch {}".format,
    "optimizer.learning_rate": "lr {}".format,
}


def file_name(text: str) -> str:
    """A title or label as part of a figure's file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What a result says of the network that was measured.

    Attributes:
        kind: "untrained"; "imported", with weights of a file and no step taken here; or "trained".
        fields: The fields of its config that count, by path as in "optimizer.learning_rate"; not
            the seed. "augment" is all of the augmentation. What a result does not say is missing.
        seed: Its seed.
        parameters: SHA-256 of its parameters; empty where the result does not say.
        path: The result.
        per_class: Its `augment.per_class`, which is the last of "augment"; empty for none.
    """

    kind: Kind
    fields: Mapping[str, Any]
    seed: int
    parameters: str
    path: pathlib.Path
    per_class: str = ""

    @property
    def row(self) -> Hashable:
        """What networks share that are averaged."""
        fields = dict(self.fields)
        if self.kind == "imported":  # the same weights, wherever their file stands
            fields[WEIGHTS] = self.parameters or fields[WEIGHTS]
        return self.kind, frozenset(fields.items())

    @property
    def key(self) -> Hashable:
        """What tells it from all others; a seed draws nothing of imported weights."""
        return self.row, None if self.kind == "imported" else self.seed

    @property
    def initial(self) -> Hashable:
        """What decides, with the seed, how it was before training."""
        return frozenset(item for item in self.fields.items() if item[0] in _SEEN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Networks that differ in their seed only.

    Attributes:
        model: The architecture, in the shortest form that no other one of the report has.
        training: "untrained", the file of the weights, or the augmentation; then what else tells
            it apart, as in "none, 25% of data, lr 0.1".
        details: The last part of `training`, without what it was augmented by: "25% of data, lr
            0.1"; empty where nothing else tells it apart.
        network: The first of the networks.
        fields: Those in which the networks of the report differ, as far as this one has them.
    """

    model: str
    training: str
    details: str = ""
    network: Network = dataclasses.field(compare=False)
    fields: Mapping[str, Any] = dataclasses.field(compare=False)

    @property
    def label(self) -> str:
        """The row's name in tables; no two rows share one."""
        return f"{self.model}, {self.training}"

    @property
    def head(self) -> str:
        """`training` without `details`: the augmentation, "untrained", or the file of weights."""
        return self.training.removesuffix(f", {self.details}") if self.details else self.training

    @property
    def augmentation(self) -> tuple[str, ...]:
        """What it was trained with; empty for untrained and imported networks."""
        return self.network.fields.get(AUGMENTATION, ())

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """By architecture; then untrained, the order of `augment.NAMES`, others; the most data."""
        first = UNTRAINED if self.network.kind == UNTRAINED else (*self.augmentation, "")[0]
        order, name = (UNTRAINED, *NAMES), _parsed(first)[0]
        rank = order.index(name) if name in order else len(order)
        fraction = self.network.fields.get("data.fraction", 1.0)
        return self.model, rank, first, -fraction, self.training


def network(
    values: Mapping[str, Any], *, steps: int, parameters: str, path: pathlib.Path
) -> Network:
    """Says what of a config tells its network apart.

    Args:
        values: Fields of the config by path, not all of them where a result does not say more.
        steps: Steps that the network was trained.
        parameters: SHA-256 of its parameters; empty where the result does not say.
        path: The result.

    Returns:
        The network. What an untrained one would have been trained with does not count.
    """
    kind: Kind = "trained" if steps else "imported" if values.get(WEIGHTS) else "untrained"
    counted = {"trained": _COUNTED, "imported": _SEEN | {WEIGHTS}, "untrained": _SEEN}[kind]
    fields = {path: _canonical(value) for path, value in values.items() if path in counted}
    per_class = fields.pop("augment.per_class", "")
    if steps:
        # A label, which is all that some results say, lists whatever follows the variant alike.
        name, learned = fields.pop("augment.name"), fields.pop("augment.learned", "")
        following = fields.pop("augment.policies") + fields.pop("augment.mixing")
        fields[AUGMENTATION] = (name, *following, *filter(None, (learned, per_class)))
        if steps != fields[_STEPS]:
            fields[_STEPS] = f"{steps} of {fields[_STEPS]}"
        if fields.get("data.fraction") == 1:  # all images, whatever the seed
            del fields[_SUBSET]
    return Network(
        kind=kind,
        fields=fields,
        seed=values["seed"],
        parameters=parameters,
        path=path,
        per_class=per_class,
    )


def tell_apart(networks: Iterable[Network]) -> dict[Hashable, Row]:
    """Makes the rows of a report.

    Where rows differ in their data, the label says so. Other fields that go with the architecture,
    as one learning rate for each, are not in the label; they stand in `Row.fields`.

    Args:
        networks: All of them.

    Returns:
        The row of each, by `Network.row`.
    """
    firsts: dict[Hashable, Network] = {}
    for each in networks:
        firsts.setdefault(each.row, each)
    every = list(firsts.values())
    paths = dict.fromkeys(path for each in every for path in each.fields)
    texts = {path: _texts(path, _values(every, path)) for path in paths}
    if AUGMENTATION in paths:
        texts[AUGMENTATION] = _augmentations(every)
    found = {key: _row(each, every, texts) for key, each in firsts.items()}
    # At last: what was measured, and where it was found.
    for detail in (lambda one: one.parameters[:8], lambda one: one.path):
        labels = [row.label for row in found.values()]
        for key, row in found.items():
            if labels.count(row.label) > 1 and (text := detail(row.network)):
                details = f"{row.details} ({text})".strip()
                training = f"{row.head}, {details}" if row.details else f"{row.head} {details}"
                found[key] = dataclasses.replace(
                    row, training=training, details=row.details and details
                )
    return found


def untrained_of(rows: Iterable[Row]) -> dict[Row, Row]:
    """Finds what networks were before training.

    Args:
        rows: All rows.

    Returns:
        By trained or imported row, the untrained one of the same architecture and input.
    """
    rows = list(rows)
    before = {row.network.initial: row for row in rows if row.network.kind == UNTRAINED}
    return {
        row: before[row.network.initial]
        for row in rows
        if row.network.kind != UNTRAINED and row.network.initial in before
    }


def standard_of(rows: Iterable[Row], augmentation: tuple[str, ...] | None = None) -> dict[Row, Row]:
    """Finds the standard runs of those whose classes get operations of their own.

    Args:
        rows: All rows.
        augmentation: What the standard run is augmented by; by default by what the other is, but
            for its operations of classes.

    Returns:
        By such a row, the one that differs from it in the augmentation alone.
    """
    rows = list(rows)
    by_fields = {frozenset(row.network.fields.items()): row for row in rows}
    found = {}
    for row in rows:
        standard = row.augmentation[:-1] if augmentation is None else augmentation
        plain = row.network.fields | {AUGMENTATION: standard}
        if row.network.per_class and (other := by_fields.get(frozenset(plain.items()))):
            found[row] = other
    return found


def differing_parts(one: Row, other: Row) -> set[Part]:
    """Compares all fields of two trained, or two untrained networks.

    Args:
        one: A row.
        other: Another one.

    Returns:
        The parts in which they differ. Which images a share of the data happens to hold is the
        part "subset", of no account where the data differ otherwise.
    """
    ours, theirs = one.network.fields, other.network.fields
    paths = {path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path)}
    if not paths.isdisjoint(_DATA):
        paths.discard(_SUBSET)
    return {_PARTS.get(path, "recipe") for path in paths}


def _values(networks: Sequence[Network], path: str) -> list[Any]:
    return list(dict.fromkeys(each.fields[path] for each in networks if path in each.fields))


def _texts(path: str, values: Sequence[Any]) -> dict[Any, str]:
    """How each value of a field is written in a label."""
    short = dict(zip(values, values, strict=True))
    if path == WEIGHTS:
        short |= shortest_paths(filter(None, values))
    elif path == _CLASSES:
        largest = max(values, key=len)
        # What all others are parts of goes without saying.
        if all(set(value) <= set(largest) and value for value in values):
            short[largest] = ()
    elif all(isinstance(value, str) for value in values):
        short |= shortest_forms(values)
    name = path.rpartition(".")[2].replace("_", " ")
    written = _WRITTEN.get(path, f"{name} {{}}".format)
    return {value: written(text) for value, text in short.items()}


def _augmentations(every: Sequence[Network]) -> dict[Any, str]:
    """How each augmentation is written in a label; of files only what tells networks apart."""
    values = _values(every, AUGMENTATION)
    parts = list(dict.fromkeys(each for value in values for each in value))
    files = [options[_FILE] for _, options in map(_parsed, parts) if options.get(_FILE)]
    bare = {each: _with_file(each, {}) for each in parts}
    kinds = {(each.fields.get(MODEL), each.fields.get(AUGMENTATION, ())) for each in every}
    # A search of each architecture is told by the architecture.
    if len(kinds) > len({(model, tuple(bare[x] for x in value)) for model, value in kinds}):
        ends = shortest_paths(files)
        bare = {each: _with_file(each, ends) for each in parts}
    forms = shortest_forms(bare.values())
    return {value: " + ".join(forms[bare[each]] for each in value) for value in values}


def _with_file(text: str, ends: Mapping[str, str]) -> str:
    """The same with another name of its file; without one where that has no other name."""
    name, options = _parsed(text)
    if not options.get(_FILE):
        return text
    end = ends.get(options[_FILE])
    others = {key: value for key, value in options.items() if key != _FILE}
    return _spelled(name, others | ({_FILE: end} if end else {}))


def _of_classes(classes: Sequence[int | str]) -> str:
    few = len(classes) <= 5
    return f"classes {', '.join(map(str, classes))}" if few else f"{len(classes)} classes"


def _row(each: Network, every: Sequence[Network], texts: Mapping[str, Mapping[Any, str]]) -> Row:
    told = {path: texts[path][value] for path, value in each.fields.items()}
    alike = [other for other in every if other.fields[MODEL] == each.fields[MODEL]]
    differing = {path: each.fields[path] for path in told if len(texts[path]) > 1}
    head = UNTRAINED if each.kind == "untrained" else told.get(AUGMENTATION)
    if each.kind == "imported":
        head = WEIGHTS_LABEL + told.pop(WEIGHTS).removeprefix("from ")
    extras = [
        told[path]
        for path in differing
        if path not in (MODEL, AUGMENTATION)
        and told.get(path)
        and (path in _DATA or len(_values(alike, path)) > 1)
    ]
    return Row(
        model=told[MODEL],
        training=", ".join((head, *extras)),
        details=", ".join(extras),
        network=each,
        fields=differing,
    )


def shortest_forms(texts: Iterable[str]) -> dict[str, str]:
    """Leaves out the options that every form of a name has.

    Args:
        texts: Names with options, as `spec.parse` reads them; others stay as they are.

    Returns:
        Every text's shortest form that no other text has.

    Examples:
        >>> list(shortest_forms(["vit(d=4, p=2)", "vit(d=4)", "resnet18(stem='cifar')"]).values())
        ['vit(p=2)', 'vit', 'resnet18']
    """
    parsed = {text: _parsed(text) for text in texts}
    found = {}
    for text, (name, options) in parsed.items():
        others = [other for its_name, other in parsed.values() if its_name == name]
        told = {
            key: value
            for key, value in options.items()
            if not all(key in other and other[key] == value for other in others)
        }
        found[text] = _spelled(name, told)
    return found


def shortest_paths(paths: Iterable[str]) -> dict[str, str]:
    """Keeps the last parts of paths, as many as tell them apart.

    Args:
        paths: The paths.

    Returns:
        Every path's end that no other path has.

    Examples:
        >>> list(shortest_paths(["a1/model.npz", "hub/a2/model.npz", "x/b.npz"]).values())
        ['a1/model.npz', 'a2/model.npz', 'b.npz']
    """
    parts = {path: pathlib.PurePath(path).parts for path in paths}
    found = {path: path for path in parts}
    for path, own in parts.items():
        for count in range(len(own), 0, -1):  # as long as no other path ends so
            if [other[-count:] for other in parts.values()].count(own[-count:]) > 1:
                break
            found[path] = str(pathlib.PurePath(*own[-count:]))
    return found


def _canonical(value: Any) -> Any:
    """The same with one spelling for each named thing with options."""
    if isinstance(value, tuple):
        return tuple(_canonical(each) for each in value)
    return _spelled(*_parsed(value)) if isinstance(value, str) else value


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    try:
        return spec.parse(text)
    except UserError:
        return text, {}


def _spelled(name: str, options: Mapping[str, Any]) -> str:
    inner = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{name}({inner})" if inner else name


def words(name: str) -> str:
    """A transform's name as people write it: `scale_zoom_in` is "scale zoom in"."""
    return name.replace("_", " ")
