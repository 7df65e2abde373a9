"""What a compiled program costs, read from its optimized HLO text.

XLA's compiler for TPUs writes into most instructions how many cycles it believes they take. It
leaves out look-ups (gathers, scatters) and what travels between chips; those are counted here.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8, "token": 0}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("ragged-all-to-all", "collective-permute", "collective-broadcast"),
)
# Names of what is in memory already: nothing moves.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("while", "conditional", "call", "async-start", "async-update", "async-done", "partition-id"),
    *("replica-id", "opt-barrier"),
}
_PARTS = {"dynamic-slice", "slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: Of its result.
        shape: Text of the result's type, with layouts: `bf16[8,128]{1,0:T(8,128)}`, or a tuple.
        opcode: `fusion`, `all-reduce`.
        operands: Names of what it takes.
        attributes: What stands in its parentheses, and the rest of the line.
        is_root: Whether it is the computation's result.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def called(self, attribute: str) -> tuple[str, ...]:
        """Names of the computations that an attribute gives: `calls`, `branch_computations`."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
        return tuple(re.findall(r"[\w.\-]+", found[1])) if found else ()


@dataclasses.dataclass(frozen=True)
class Module:
    """A parsed program.

    Attributes:
        computations: Instructions by the computation's name.
        entry: Name of the computation that is run.
    """

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of communication between devices.

    Attributes:
        kind: `all-reduce`.
        group_size: How many devices take part in each; 0 for all.
        is_async: Whether other work may go on meanwhile.
        bytes: Of one such operation on one device: the larger of what goes in and comes out.
        count: How often it happens in one run of the program.
    """

    kind: str
    group_size: int
    is_async: bool
    bytes: int
    count: float


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one run of a program costs on one device.

    Of a branch, each way counts as equally likely; of a loop, every turn counts.

    Attributes:
        cycles: The compiler's estimate, without look-ups, communication and what is `uncounted`; 0
            where it gives none.
        rows: Rows that gathers and scatters look up, one by one.
        uncounted: Bytes of the instructions that have no estimate, in main memory, by opcode.
        bytes: Read from and written to the device's main memory, roughly: operands and results of
            every fused operation, and of sliced ones the slice.
        collectives: What travels between devices, equal ones together, the most bytes first.
        endless_loops: Loops whose turns the compiler does not know; they count once.
    """

    cycles: float
    rows: float
    uncounted: Mapping[str, float]
    bytes: float
    collectives: tuple[Collective, ...]
    endless_loops: int


def parse(text: str) -> Module:
    """Reads a program.

    Args:
        text: `compiled.as_text()`.

    Returns:
        Its computations.

    Raises:
        ValueError: The text is no HLO module with an entry.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = computations.setdefault(found[2], [])
            entry = found[2] if found[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_instruction(line, found))
    if entry is None:
        raise ValueError("this text is no HLO module: no computation is its entry")
    return Module({name: tuple(lines) for name, lines in computations.items()}, entry)


def _instruction(line: str, found: re.Match[str]) -> Instruction:
    start = found.end()
    stop = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    opening = line.index("(", stop)
    closing = _closing(line, opening)
    operands = line[opening + 1 : closing]
    opcode = line[stop:opening].strip()
    return Instruction(
        name=found[1],
        shape=line[start:stop],
        opcode=opcode,
        # What a parameter or a constant has in parentheses is no name.
        operands=()
        if opcode in ("parameter", "constant")
        else tuple(re.findall(r"%([\w.\-]+)", operands)),
        attributes=f"{operands} {line[closing + 1 :]}",
        is_root=line.lstrip().startswith("ROOT "),
    )


def _closing(line: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for place in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if not depth:
            return place
    raise ValueError(f"a parenthesis does not close: {line!r}")


def size_in_bytes(shape: str, *, main_memory_only: bool = False) -> int:
    """Bytes of an array or a tuple of arrays.

    Args:
        shape: As HLO writes it.
        main_memory_only: Leave out what lies in another memory of the chip (`S(1)` in the layout).

    Returns:
        Their number, without padding.

    Examples:
        >>> size_in_bytes("(f32[2,3]{1,0}, bf16[4]{0:T(128)S(1)})")
        32
        >>> size_in_bytes("bf16[4]{0:T(128)S(1)}", main_memory_only=True)
        0
    """
    total = 0
    for kind, sides, layout in _ARRAY.findall(shape):
        if main_memory_only and re.search(r"S\([1-9]", layout):
            continue
        bits = _BITS.get(kind) or int(re.sub(r"\D", "", kind) or 0)
        total += math.prod(map(int, filter(None, sides.split(",")))) * bits // 8
    return total


def _elements(shape: str) -> int:
    sides = _ARRAY.search(shape)[2]
    return math.prod(map(int, filter(None, sides.split(","))))


def costs(module: Module) -> Costs:
    """Adds up what a program costs.

    Args:
        module: The program.

    Returns:
        Its costs on one device.
    """
    cycles = rows = moved = 0.0
    endless = 0
    found: collections.Counter[tuple[str, int, bool, int]] = collections.Counter()
    by_channel: dict[str, list[tuple[str, int, bool, int, float]]] = collections.defaultdict(list)
    uncounted: collections.Counter[str] = collections.Counter()
    for name, instruction, times, is_async, fused in _walk(module, module.entry, 1.0, False, False):
        shapes = {each.name: each.shape for each in module.computations[name]}
        kind = instruction.opcode.removesuffix("-start")
        if kind in _COLLECTIVES:
            begins = is_async or instruction.opcode.endswith("-start")
            size = _payload(instruction, shapes)
            group = next(iter(groups(instruction)), ())
            channel = _CHANNEL.search(instruction.attributes)
            one = (kind, len(group), begins, size, times)
            by_channel[channel[1] if channel else f"{name} {instruction.name}"].append(one)
        elif instruction.opcode in ("gather", "scatter"):
            rows += times * _rows(instruction, shapes)
        if instruction.opcode == "while" and _turns(module, instruction) is None:
            endless += 1
        if not fused:
            estimate = _CYCLES.search(instruction.attributes)
            size = times * _traffic(instruction, shapes, module)
            moved += size
            if estimate:
                cycles += times * int(estimate[1])
            elif size and kind not in _COLLECTIVES and not instruction.opcode.endswith("-start"):
                uncounted[instruction.opcode] += size
    for parts in by_channel.values():
        # A TPU may begin one in a fusion, go on in those of other work, and end in another.
        kind, group, begins, size, _ = parts[0]
        found[kind, group, begins or len(parts) > 1, size] += max(times for *_, times in parts)
    in_order = sorted(found.items(), key=lambda each: -each[0][3] * each[1])
    collectives = tuple(Collective(*key, count) for key, count in in_order)
    return Costs(cycles, rows, dict(uncounted), moved, collectives, endless)


def _walk(
    module: Module, name: str, times: float, is_async: bool, fused: bool
) -> Iterator[tuple[str, Instruction, float, bool, bool]]:
    """Every instruction, how often it is run, and whether within an asynchronous or fused one."""
    for each in module.computations[name]:
        yield name, each, times, is_async, fused
        inner: list[tuple[str, float]] = []
        if each.opcode == "while":
            turns = times * (_turns(module, each) or 1)
            inner = [(one, turns) for one in (*each.called("body"), *each.called("condition"))]
        elif each.opcode == "conditional":
            branches = each.called("branch_computations") or (
                *each.called("true_computation"),
                *each.called("false_computation"),
            )
            inner = [(one, times / len(branches)) for one in branches]
        elif each.opcode == "call":
            inner = [(one, times) for one in each.called("to_apply")]
        elif each.opcode in ("fusion", "async-start"):
            inner = [(one, times) for one in each.called("calls")]
        for one, turns in inner:
            begins = is_async or each.opcode == "async-start"
            yield from _walk(module, one, turns, begins, fused or each.opcode == "fusion")


def _turns(module: Module, loop: Instruction) -> int | None:
    """How often a loop's body is run, where that is written down.

    Without a note of the compiler's, a loop whose condition compares something with a constant is
    one of JAX's scans, which count from 0 in steps of 1.
    """
    if found := _TRIPS.search(loop.attributes):
        return int(found[1])
    condition = {each.name: each for each in module.computations[loop.called("condition")[0]]}
    last = next(each for each in condition.values() if each.is_root)
    limits = [condition[each] for each in last.operands if condition[each].opcode == "constant"]
    if last.opcode != "compare" or "direction=LT" not in last.attributes or len(limits) != 1:
        return None
    return int(limits[0].attributes.split()[0])


def _payload(instruction: Instruction, shapes: Mapping[str, str]) -> int:
    taken = sum(size_in_bytes(shapes[each]) for each in instruction.operands)
    given = size_in_bytes(instruction.shape)
    # What a started one gives holds what it takes, but for all-reduce.
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        given -= taken
    return max(taken, given)


def groups(instruction: Instruction) -> list[list[int]]:
    """Says which devices a collective lets talk to each other.

    Args:
        instruction: A collective.

    Returns:
        Numbers of the devices of each group, in the program's order; none where all are in one.

    Examples:
        >>> line = "%r = f32[8] all-reduce(%p), replica_groups=[2,2]<=[2,2]T(1,0)"
        >>> groups(Instruction("r", "f32[8]", "all-reduce", (), line, False))
        [[0, 2], [1, 3]]
    """
    text = instruction.attributes
    if found := re.search(r"source_target_pairs=\{(.*?\})\}", text):
        return _numbers(found[1])
    if found := re.search(r"replica_groups=\{(\{.*?\})\}", text):
        return _numbers(found[1])
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        sides = [int(side) for side in found[3].split(",")]
        order = [int(axis) for axis in found[4].split(",")] if found[4] else range(len(sides))
        numbers = np.arange(math.prod(sides)).reshape(sides).transpose(order)
        return numbers.reshape(int(found[1]), int(found[2])).tolist()
    if found := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", text):
        sides = {name: int(side) for name, side in re.findall(r"'(\w+)'=(\d+)", found[1])}
        # Of an axis it may be a part: 'data':(16)4 are the 4 devices behind each of 16.
        parts = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", found[2])
        shape, within = [], []
        for name, side in sides.items():
            mine = [each for each in parts if each[0] == name]
            for _, before, part in mine:
                cut = (int(before), int(part), side // int(before) // int(part)) if part else None
                within.append(len(shape) + (1 if cut else 0))
                shape += cut or (side,)
            shape += () if mine else (side,)
        numbers = np.arange(math.prod(shape)).reshape(shape)
        last = range(-len(within), 0)
        size = math.prod(shape[axis] for axis in within)
        return np.moveaxis(numbers, within, last).reshape(-1, size).tolist()
    return []


def _numbers(text: str) -> list[list[int]]:
    """`{0,1},{2,3}` as lists."""
    return [list(map(int, each.split(","))) for each in re.findall(r"\{([\d,]+)\}", text)]


def crossing(module: Module, block: int) -> list[str]:
    """Finds collectives between devices that are to have nothing to do with each other.

    Args:
        module: The program.
        block: So many devices in a row may talk to each other.

    Returns:
        Names of those instructions that let others talk.
    """
    return [
        each.name
        for lines in module.computations.values()
        for each in lines
        if each.opcode.removesuffix("-start") in _COLLECTIVES
        and any(len({place // block for place in group}) != 1 for group in groups(each) or [()])
    ]


def _rows(instruction: Instruction, shapes: Mapping[str, str]) -> float:
    """How many single rows a gather or a scatter looks up."""
    if found := re.search(r"slice_sizes=\{([\d,]+)\}", instruction.attributes):
        return _elements(instruction.shape) / math.prod(map(int, found[1].split(",")))
    indices = shapes[instruction.operands[len(instruction.operands) // 2]]
    sides = [int(side) for side in _ARRAY.search(indices)[2].split(",") if side]
    if found := re.search(r"index_vector_dim=(\d+)", instruction.attributes):
        sides = [side for axis, side in enumerate(sides) if axis != int(found[1])]
    return math.prod(sides)


def _traffic(instruction: Instruction, shapes: Mapping[str, str], module: Module) -> int:
    """Bytes that one instruction reads and writes in main memory."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    inside = module.computations[instruction.called("calls")[0]] if opcode == "fusion" else ()
    read = sum(
        min(size_in_bytes(shapes[each], main_memory_only=True), _part_read(inside, number))
        if inside
        else size_in_bytes(shapes[each], main_memory_only=True)
        for number, each in enumerate(instruction.operands)
    )
    written = size_in_bytes(instruction.shape, main_memory_only=True)
    if opcode in _PARTS:
        return 2 * written
    root = next((each for each in inside if each.is_root), instruction)
    if root.opcode == "dynamic-update-slice":
        known = {each.name: each.shape for each in inside} or shapes
        update = size_in_bytes(known[root.operands[1]])
        return update + (read if inside else update)
    if opcode == "copy-start":  # it gives out what it takes, too
        return written
    if opcode == "slice-start":  # likewise, the whole of which it takes a slice
        taken = sum(size_in_bytes(shapes[each]) for each in instruction.operands)
        return size_in_bytes(instruction.shape) - taken + written - read
    return read + written


def _part_read(inside: tuple[Instruction, ...], number: int) -> float:
    """Most bytes that a fusion reads of one operand, of which it may want only a slice."""
    names = {
        each.name
        for each in inside
        if each.opcode == "parameter" and each.attributes.split()[0] == str(number)
    }
    total = 0
    for each in inside:
        if names & set(each.operands):
            if each.opcode in _PARTS:
                total += size_in_bytes(each.shape)
            elif each.opcode != "dynamic-update-slice" or each.operands[0] not in names:
                return math.inf
    return total
