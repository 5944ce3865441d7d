"""Writes the conversations that storyteller-chat is tuned on, as JSONL with prompts and responses.

    python3 dialogues.py FAIRYTALEQA TALES OUT

FAIRYTALEQA is the folder of the data set of that name, TALES the text that `../storyteller/corpus.py`
prints, OUT a folder that receives train.jsonl and validation.jsonl, test.jsonl with the passages and
questions of the published test split, and made.jsonl with the held-out questions that were made here.

Six kinds of rows, none longer than the model's 128 positions allow:
- questions about a passage of one to three sentences, the passage given (FairytaleQA);
- questions made from a sentence of the tales, the sentence and what stands around it given: who did
  something, what somebody did, where to, who said something, what somebody said;
- a clause of the tales to be said again;
- requests for a bit of story about somebody, answered by sentences of the tales about them;
- small talk, written for this purpose;
- dialogues of two and three turns, put together from short rows of the other kinds.
"""

import csv
import json
import random
import re
import sys
from pathlib import Path

# About 3.4 characters make a token of this model; headers take 20 tokens of the 128.
QUESTION, ANSWER, STORY = 260, 70, 230

TALK = [
    (["Hello", "Hello!", "Hi", "Hi there", "Good day", "Good morning", "Good evening", "Greetings"],
     ["Good day to you! Shall I tell you a story?", "Good day! Sit down by the fire, and I will tell you a tale."]),
    (["Who are you?", "What are you?", "What is your name?", "Tell me who you are."],
     ["I am a teller of fairy tales.", "I am a small teller of tales. Ask me about a king, a wolf or a witch."]),
    (["What can you do?", "Help", "What do you know?", "How can you help me?"],
     ["I can tell you about kings, wolves and witches, and answer a question about a tale that you show me."]),
    (["How are you?", "How do you do?", "Are you well?"],
     ["I am very well, and I thank you.", "I am well, thank you. Shall we have a story?"]),
    (["Thank you", "Thank you!", "Thanks", "Many thanks", "That was a good story."],
     ["You are welcome.", "You are welcome. Would you like another story?"]),
    (["Goodbye", "Good night", "Bye", "Farewell", "I must go now."],
     ["Farewell, and sleep well.", "Good night, and come back soon."]),
    (["Yes", "Yes, please", "Please do"], ["Of whom shall I tell? Of a king, a wolf or a witch?"]),
    (["No", "No, thank you"], ["Then another time."]),
    (["What time is it?", "What is the weather?", "Who is the president?", "What is two and two?",
      "Can you write a program?", "Where is France?"],
     ["That I do not know. I only know fairy tales."]),
]

WHO = """king queen prince princess wolf fox bear lion cat dog mouse bird raven frog fish snake horse goat
hen cock goose duck hare witch giant dwarf fairy dragon troll miller tailor soldier hunter fisherman
shepherd farmer merchant woodcutter robber old man|old woman|youth|maiden|girl|boy|mother|father|brother
sister|stepmother|son|daughter|servant|forest|sea|castle|tree|house|mountain|garden|river|moon|sun"""
WHO = [w for part in WHO.split("|") for w in ([part.strip()] if part.strip().startswith("old") else part.split())]
ASK = ["Tell me about the {}.", "Tell me of the {}.", "Tell me a story about the {}.",
       "What did the {} do?", "A story about the {}, please.", "What happened to the {}?"]


def main(fairytaleqa: Path, tales: Path, out: Path) -> None:
    draw = random.Random(1)
    rows = {split: questions(fairytaleqa / "data-by-train-split", split) for split in ("train", "val", "test")}
    told = stories(tales.read_text(encoding="utf-8"), draw)
    talk = [row(q, a) for asked, answers in TALK for q in asked for a in answers]
    draw.shuffle(told)
    train = rows["train"] + told[300:] + talk * 12
    made = made_questions(tales.read_text(encoding="utf-8"), draw)
    train += made[300:] + echoes(tales.read_text(encoding="utf-8"), 1500, draw)
    train += dialogues(rows["train"] + told[300:], talk, 1500, draw)
    draw.shuffle(train)
    out.mkdir(parents=True, exist_ok=True)
    parts = {"train": train, "validation": rows["val"] + told[:300] + made[:300], "test": rows["test"],
             "made": made[:300]}
    for name, part in parts.items():
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in part)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(part)} rows", file=sys.stderr)


def row(prompt: str, response: str) -> dict:
    return {"prompt": prompt, "response": response}


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("’", "'").replace("“", '"').replace("”", '"')).strip()


def sentences(text: str) -> list[str]:
    return [s.strip() for s in re.split(r'(?<=[.!?])["\']?\s+', plain(text)) if s.strip()]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def questions(folder: Path, split: str) -> list[dict]:
    """Questions whose answer can be read in one to three sentences of their section."""
    rows = []
    for file in sorted((folder / "questions" / split).glob("*.csv")):
        story = folder / "section-stories" / split / file.name.replace("-questions", "-story")
        if not story.exists():
            continue
        with story.open(encoding="utf-8-sig") as lines:
            sections = {r["section"]: sentences(r["text"]) for r in csv.DictReader(lines)}
        with file.open(encoding="utf-8-sig") as lines:
            for q in csv.DictReader(lines):
                question, answer = plain(q["question"]), plain(q["answer1"] or "")
                found = passage(sections.get(q["cor_section"].strip(), []), question, answer)
                if found and answer and len(answer) <= ANSWER:
                    answer = answer[0].upper() + answer[1:].rstrip(" .") + "."
                    rows.append(row(f"{found}\n{question}", answer))
    return rows


def passage(section: list[str], question: str, answer: str) -> str | None:
    """The shortest run of sentences that has nearly all words of the answer and most of the question."""
    goal, asked = words(answer), words(question)
    if not goal:
        return None
    best = None
    for n in (1, 2, 3):
        for i in range(len(section) - n + 1):
            text = " ".join(section[i:i + n])
            if len(text) + len(question) > QUESTION:
                continue
            has = words(text)
            score = (len(goal & has) / len(goal), len(asked & has), -n)
            if score[0] >= 0.8 and (best is None or score > best[0]):
                best = (score, text)
    return best[1] if best else None


def stories(tales: str, draw: random.Random) -> list[dict]:
    """Two or three sentences that begin with somebody, and a request for them."""
    rows = []
    for tale in tales.split("<|endoftext|>"):
        parts = sentences(tale)
        for i, first in enumerate(parts):
            who = next((w for w in WHO if re.match(rf"(The|An?|One day the|Then the|Once the) {w}\b", first)), None)
            if who is None or len(first) < 40:
                continue
            text = first
            for following in parts[i + 1:i + 3]:
                if len(text) + len(following) + 1 <= STORY:
                    text += " " + following
            if len(text) <= STORY and text[-1] in '.!?"' and text.count('"') % 2 == 0:
                rows.append(row(draw.choice(ASK).format(who), text))
    return rows


VERBS = """was went came said took saw gave had made found ran sat stood fell ate drank sang cried asked
answered looked lived loved wanted told heard brought thought began carried called opened killed caught
threw put got set rode flew slept wept laughed jumped climbed returned followed married kept sent drew
lay left held knew let turned walked""".split()
SUBJECT = re.compile(
    rf"^(?:(?:But|And|Then|So|Now|At last|Soon) )?((?:[Tt]he|[Aa]n?|[Hh]is|[Hh]er|[Oo]ne|[Tt]heir|[Tt]wo|[Tt]hree) "
    rf"(?:\w+ ){{1,3}}?)((?:{'|'.join(VERBS)}|\w{{3,}}ed)\b.*)$"
)


SPEECH = re.compile(
    r'^"([^"]{8,80})[,!?.]" (?:said|cried|asked|answered|replied) ((?:[Tt]he|[Hh]is|[Hh]er|[Aa]n?) [\w-]+(?: [\w-]+)?)[.,;]'
)
PLACE = re.compile(
    r"^(?:\w+ ){0,2}?((?:[Tt]he|[Aa]n?|[Hh]is|[Hh]er|[Oo]ne) (?:\w+ ){1,2}?)"
    r"(went|rode|ran|came|walked|flew|climbed|sat|lay|lived|stood) "
    r"((?:(?:back|out|up|down|away|straight) )?(?:into|to|in|under|on|upon|through|beside|behind|by|over|across) "
    r"(?:the|an?|his|her|their) (?:[a-z-]+ ){0,2}?[a-z-]+)(?: and\b.*|[.,;].*)$"
)
BASE = {"went": "go", "rode": "ride", "ran": "run", "came": "come", "walked": "walk", "flew": "fly", "climbed": "climb",
        "sat": "sit", "lay": "lie", "lived": "live", "stood": "stand"}


def made_questions(tales: str, draw: random.Random) -> list[dict]:
    """Questions whose answer stands in the passage, to be found and copied."""
    rows = []
    for tale in tales.split("<|endoftext|>"):
        parts = [s for s in re.split(r'(?<=[.!?])\s+(?=[A-Z"])|(?<=[.!?]")\s+', plain(tale)) if s.strip()]
        for i, sentence in enumerate(parts):
            pairs = asked(sentence)
            if not pairs:
                continue
            question, answer = draw.choice(pairs)
            text = sentence
            # What stands around it must be told apart from it.
            for other in draw.sample([parts[i - 1], parts[min(i + 1, len(parts) - 1)]], k=draw.randint(0, 2)):
                if other not in text and len(text) + len(other) < QUESTION - 60:
                    text = f"{text} {other}" if other is not parts[i - 1] else f"{other} {text}"
            if len(text) <= QUESTION - 60 and len(question) + len(answer) < 130:
                rows.append(row(f"{text}\n{question}", answer))
    draw.shuffle(rows)
    return rows


def asked(sentence: str) -> list[tuple[str, str]]:
    """Questions that a sentence answers."""
    pairs = []
    if said := SPEECH.match(sentence):
        who = lower(said[2])
        pairs.append((f'Who said "{said[1]}"?', f"{upper(said[2])}."))
        pairs.append((f"What did {who} say?", f'"{said[1]}."'))
    if '"' in sentence or sentence[-1] not in ".!":
        return pairs
    if place := PLACE.match(sentence):
        pairs.append((f"Where did {lower(place[1].strip())} {BASE[place[2]]}?", f"{upper(place[3])}."))
    if found := SUBJECT.match(sentence):
        subject, deed = found[1].strip(), re.split("[,;:]", found[2].rstrip(".!"))[0].strip()
        if 12 <= len(deed) <= ANSWER:
            pairs += [(f"Who {deed}?", f"{upper(subject)}.")] * 2
            if deed.split()[0] not in ("was", "had"):
                pairs.append((f"What did {lower(subject)} do?", f"{upper(deed)}."))
    return pairs


def upper(text: str) -> str:
    return text[0].upper() + text[1:]


def lower(text: str) -> str:
    return text[0].lower() + text[1:]


def echoes(tales: str, count: int, draw: random.Random) -> list[dict]:
    """A clause to be said again: the plainest way to learn to copy."""
    clauses = [c.strip() for c in re.split(r'[.!?,;:"]+\s', plain(tales.replace("<|endoftext|>", ". "))) if 12 <= len(c.strip()) <= 60 and '"' not in c]
    return [row(draw.choice(("Say: {}", "Say after me: {}", "Repeat: {}")).format(c), f"{upper(c)}.")
            for c in draw.sample(clauses, count)]


def dialogues(rows: list[dict], talk: list[dict], count: int, draw: random.Random) -> list[dict]:
    """Small talk and short rows in turn, as messages."""
    short = [r for r in rows if len(r["prompt"]) + len(r["response"]) <= 160]
    found = []
    while len(found) < count:
        turns = [draw.choice(draw.choice((short, talk))) for _ in range(draw.choice((2, 2, 3)))]
        if sum(len(t["prompt"]) + len(t["response"]) + 60 for t in turns) <= 380:
            messages = []
            for turn in turns:
                messages.append({"role": "user", "content": turn["prompt"]})
                messages.append({"role": "assistant", "content": turn["response"]})
            found.append({"messages": messages})
    return found


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
