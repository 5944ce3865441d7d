#!/usr/bin/env python3
"""Chat templates as `transformers` renders them, beside ours.

    chat_templates.py --llada target/debug/llada PATH...
        renders every template (*.jinja, *.jinja2, and the `chat_template` of every
        tokenizer_config.json) below the folders over several conversations with
        `transformers` and with `llada tokenizer render`, and says which differ.

    chat_templates.py --golden tests/fixtures/jinja.json
        computes what the golden file expects anew: null where jinja2 raises.

Needs `pip install transformers jinja2` (no PyTorch).
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import transformers.utils.chat_template_utils as hub

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
FIXED_TIME = (2026, 7, 4, 15, 6, 7)


def say(role, content, **more):
    return {"role": role, "content": content, **more}


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather <now> & \"here\".",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city, e.g. Köln"},
                "days": {"type": "integer", "enum": [1, 2, 3]},
            },
            "required": ["city"],
        },
    },
}
CALL = {"id": "call12345", "type": "function"}
CALL["function"] = {"name": "weather", "arguments": {"city": "Köln", "days": 2}}

CONVERSATIONS = {
    "one turn": {"messages": [say("user", "Hi <b> & 'you'")]},
    "system": {"messages": [say("system", "Be kind.\n"), say("user", " Hi ")]},
    "answered": {"messages": [say("user", "Hi"), say("assistant", "Hello.")]},
    "several turns": {
        "messages": [
            say("system", "Be kind."),
            say("user", "What is 2+2?"),
            say("assistant", "<think>\nEasy.\n</think>\n\n4"),
            say("user", "Grüße 王 😀"),
            say("assistant", "Hello."),
            say("user", "Bye"),
        ]
    },
    "thoughts": {
        "messages": [
            say("user", "What is 2+2?"),
            say("assistant", "4", reasoning_content="Easy."),
            say("user", "And 3+3?"),
        ]
    },
    "parts": {
        "messages": [
            say("system", [{"type": "text", "text": "Be kind."}]),
            say("user", [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]),
        ]
    },
    "tools": {"messages": [say("system", "Be kind."), say("user", "Rain?")], "tools": [TOOL]},
    "calls": {
        "messages": [
            say("user", "Rain?"),
            say("assistant", None, tool_calls=[CALL]),
            say("tool", '{"rain": false}', tool_call_id="call12345", name="weather"),
            say("assistant", "No."),
        ],
        "tools": [TOOL],
    },
    "two users": {"messages": [say("user", "a"), say("user", "b")]},
    "odd role": {"messages": [say("narrator", "Once."), say("user", "b")]},
}


def templates(paths):
    """(name, source) of every template below `paths`."""
    for root in map(Path, paths):
        for file in sorted([root] if root.is_file() else root.rglob("*")):
            if file.suffix in (".jinja", ".jinja2"):
                yield str(file), file.read_bytes().decode("utf-8")
            elif file.name == "tokenizer_config.json":
                found = json.loads(file.read_text()).get("chat_template")
                named = found if isinstance(found, list) else [{"name": "", "template": found}]
                for entry in named:
                    if isinstance(entry.get("template"), str):
                        yield f"{file} {entry['name']}".strip(), entry["template"]


def theirs(source, conversation, prompt):
    try:
        messages = hub._normalize_chat_messages(conversation["messages"])
        rendered, _ = hub.render_jinja_template(
            conversations=[messages],
            tools=conversation.get("tools"),
            chat_template=source,
            add_generation_prompt=prompt,
            **TOKENS,
        )
        return rendered[0], None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def ours(llada, model, conversation, prompt):
    command = [llada, "tokenizer", "render", model] + ([] if prompt else ["--no-generation-prompt"])
    run = subprocess.run(command, input=json.dumps(conversation).encode(), capture_output=True)
    if run.returncode == 0:
        return run.stdout.decode("utf-8").removesuffix("\n"), None
    return None, run.stderr.decode("utf-8", "replace").strip() or f"exit {run.returncode}"


def compare(llada, paths, verbose):
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as model:
        Path(model, "tokenizer_config.json").write_text(json.dumps(TOKENS))
        for name, source in templates(paths):
            counts["templates"] += 1
            Path(model, "chat_template.jinja").write_bytes(source.encode("utf-8"))
            for title, conversation in CONVERSATIONS.items():
                for prompt in (False, True):
                    (text, error) = theirs(source, conversation, prompt)
                    (found, refusal) = ours(llada, model, conversation, prompt)
                    if text == found:
                        counts["agree" if error is None else "both raise"] += 1
                        continue
                    counts["differ"] += 1
                    print(f"{name}: {title}, generation prompt {'on' if prompt else 'off'}")
                    if verbose:
                        print(f"  transformers: {error if text is None else text!r}")
                        print(f"  llada:        {refusal if found is None else found!r}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return counts["differ"] > 0 or counts["templates"] == 0


def golden(file):
    class Fixed(hub.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(*FIXED_TIME)

    hub.datetime = Fixed
    content = json.loads(Path(file).read_text())
    for case in content["cases"]:
        try:
            compiled = hub._compile_jinja_template(case["template"])
            case["expected"] = compiled.render(**content["context"])
        except Exception:
            case["expected"] = None
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in content["cases"])
    context = json.dumps(content["context"], ensure_ascii=False)
    Path(file).write_text(f'{{"context": {context},\n "cases": [\n{lines}\n]}}\n')
    print(f"{len(content['cases'])} cases")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", help="folders with templates")
    parser.add_argument("--llada", default=os.environ.get("LLADA", "llada"))
    parser.add_argument("--golden", help="the golden file to compute anew")
    parser.add_argument("-v", "--verbose", action="store_true", help="show both texts")
    args = parser.parse_args()
    if args.golden:
        golden(args.golden)
        return 0
    return compare(args.llada, args.paths, args.verbose)


if __name__ == "__main__":
    sys.exit(main())
