"""Counts lines of code of the package, without docstrings, comments and blank lines, by room.

    python benchmarks/code_size.py            # a table of rooms
    python benchmarks/code_size.py --files    # and of every file

A docstring is any string that stands alone as a statement: of modules, classes and functions, and
below the fields of a config.
"""

import argparse
import ast
import io
import pathlib
import tokenize
from collections import Counter

ROOT = pathlib.Path(__file__).parents[1] / "invariance_jax"
_LAYOUT = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
)


def lines_of_code(text: str) -> int:
    """Counts the lines that hold code.

    Args:
        text: A Python file.

    Returns:
        Their number; a statement over several lines counts each.

    Examples:
        >>> lines_of_code('"Doc."\\n\\nx = 1  # one\\n# nothing\\n')
        1
    """
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {
        line
        for token in tokens
        if token.type not in _LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="list every file")
    files = {
        path.relative_to(ROOT): lines_of_code(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
        if "configs" not in path.parts
    }
    rooms: Counter[str] = Counter()
    for path, count in files.items():
        rooms[str(path.parent)] += count
    if parser.parse_args().files:
        for path, count in files.items():
            print(f"{count:6}  {path}")
    for room, count in rooms.most_common():
        print(f"{count:6}  {room}")
    print(f"{sum(rooms.values()):6}  in {len(files)} files")


if __name__ == "__main__":
    main()
