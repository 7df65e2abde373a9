"""Cuts the nouns above ImageNet's 1000 classes out of WordNet 3.0.

    apt-get install wordnet-base
    python benchmarks/make_wordnet.py imagenet_synset_words.txt

The argument lists ImageNet's classes in the order of their labels, one a line: WordNet's id, then
words, as in "n01440764 tench, Tinca tinca". Writes `invariance_jax/data/wordnet/wordnet.csv`, a
line a synset: its id, its name as NLTK writes it, the ids above it (hypernyms, of instances too);
of a class its label, and the first sense of its first word, which the paper's code took for it.
Beside it stands WordNet's license, copied from the head of its own file.
"""

import argparse
import csv
import pathlib
import re

OUTPUT = pathlib.Path(__file__).parents[1] / "invariance_jax/data/wordnet"
_HYPERNYMS = ("@", "@i")


def read_synsets(path: pathlib.Path) -> dict[str, tuple[str, list[str]]]:
    """Reads `data.noun`.

    Args:
        path: The file.

    Returns:
        First word and hypernyms of each synset, by id.
    """
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the license
            continue
        # offset file type words(hex) word id ... pointers (symbol offset part source/target) ...
        fields = line.partition(" | ")[0].split()
        words = int(fields[3], 16)
        start = 5 + 2 * words
        pointers = [fields[start + 4 * i :][:3] for i in range(int(fields[start - 1]))]
        above = ["n" + at for symbol, at, kind in pointers if symbol in _HYPERNYMS and kind == "n"]
        found["n" + fields[0]] = (fields[4].lower(), above)
    return found


def read_senses(path: pathlib.Path) -> dict[str, list[str]]:
    """Reads `index.noun`.

    Args:
        path: The file.

    Returns:
        Ids of the synsets of each word, the most frequent sense first.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [line.split() for line in lines if not line.startswith("  ")]  # the license
    return {entry[0]: [f"n{at}" for at in entry[-int(entry[2]) :]] for entry in entries}


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", type=pathlib.Path)
    parser.add_argument("--wordnet", type=pathlib.Path, default=pathlib.Path("/usr/share/wordnet"))
    flags = parser.parse_args()
    synsets = read_synsets(flags.wordnet / "data.noun")
    senses = read_senses(flags.wordnet / "index.noun")
    classes, first = {}, {}
    for label, line in enumerate(flags.classes.read_text(encoding="utf-8").splitlines()):
        synset, words = line.split(maxsplit=1)
        word = words.split(",")[0].strip().replace(" ", "_").lower()
        classes[synset], first[synset] = label, senses[word][0]

    def closure(wanted: set[str]) -> set[str]:
        found: set[str] = set()
        while wanted:
            found |= wanted
            wanted = {above for each in wanted for above in synsets[each][1]} - found
        return found

    own = closure(set(classes))
    needed = sorted(own | closure(set(first.values())))
    with (OUTPUT / "wordnet.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["synset", "name", "hypernyms", "label", "first_sense"])
        for each in needed:
            word, above = synsets[each]
            name = f"{word}.n.{senses[word].index(each) + 1:02}"
            writer.writerow(
                [each, name, " ".join(above), classes.get(each, ""), first.get(each, "")]
            )
    head = (flags.wordnet / "data.noun").read_text(encoding="utf-8").split("\n00001740 ")[0]
    license_text = "\n".join(re.sub(r"^ +\d+ ", "", line).rstrip() for line in head.splitlines())
    (OUTPUT / "LICENSE.wordnet").write_text(f"{license_text}\n", encoding="utf-8")
    other = sum(first[each] != each for each in classes)
    print(f"{len(own)} synsets above {len(classes)} classes, {len(needed)} with first senses;")
    print(f"the first sense is another one for {other} classes")


if __name__ == "__main__":
    main()
