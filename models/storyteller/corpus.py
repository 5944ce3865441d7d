#!/usr/bin/env python3
"""Selects the fairy tales that `storyteller` was trained on.

usage: corpus.py CHILDRENS_BOOKS.txt CLASSIC_BOOKS.txt > tales.txt

Both inputs are documents separated by <|endoftext|>. Kept are the short documents of the first
(FairytaleQA and Grimm) and the books named below. Front matter and headings are dropped, and so is
a document that shares more than a fifth of its eight-word sequences with one already kept: Grimm
occurs more than once, and a held-out document must not have a twin in training.
"""

import re
import sys

END = "<|endoftext|>"
LONGEST_TALE = 60_000
BOOKS = """Alice's Adventures in Wonderland|The Book of Dragons|Through the Looking-Glass
Mopsa the Fairy|Prince Prigio|The Happy Prince|The Princess and the Goblin|The Rose and the Ring
Nine Unlikely Tales|At the Back of the North Wind|The Jungle Book|The Cuckoo Clock
The Little Mermaid|Aladdin and the Magic Lamp|Andersen's Fairy Tales|The Wonderful Wizard of Oz
Ozma of Oz|The Life and Adventures of Santa Claus|Aesop's Fables|Irish Fairy Tales
The Story of Doctor Dolittle|Beauty and the Beast"""
TITLES = [t for line in BOOKS.splitlines() for t in line.split("|")]


def clean(text):
    text = re.sub(r"^.*?-------", "", text, count=1, flags=re.S) if "# Title:" in text else text
    lines = []
    for line in text.split("\n"):
        line = line.strip().replace("_", "").replace("\u200b", "")
        heading = re.match(r"(#|\[|CHAPTER|BOOK\b|PREFACE|VOLUME|[IVXLC]+\.?$)", line)
        if not heading and line.upper() != line or line.startswith('"'):
            lines.append(line)
        elif not line:
            lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def main():
    tales, books = [], []
    for name in sys.argv[1:3]:
        for document in open(name, encoding="utf-8").read().split(END):
            head = document[:150].lstrip()
            if name == sys.argv[1] and 600 < len(document) <= LONGEST_TALE:
                tales.append(document)
            elif any(head.removeprefix("# Title: ").startswith(t) for t in TITLES):
                books.append(document)
    seen, kept = set(), []
    for document in tales + books:
        text = clean(document)
        words = re.findall(r"\w+", text.lower())
        shingles = {hash(tuple(words[i : i + 8])) for i in range(len(words) - 7)}
        if shingles and len(shingles & seen) < 0.2 * len(shingles):
            kept.append(text)
            seen |= shingles
    sys.stdout.write(f"\n{END}\n".join(kept) + "\n")


main()
