#!/usr/bin/env python3
"""Copies small real files of the repository into fuzz/corpus, as inputs to start from."""
import json
import pathlib

root = pathlib.Path(__file__).resolve().parent.parent
corpus = root / "fuzz" / "corpus"


def seed(target, name, data):
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


for path in [*root.glob("configs/*.toml"), *root.glob("models/*/*.toml"), *root.glob("runs/**/*.toml")]:
    seed("recipe", f"{path.parent.name}-{path.name}", path.read_text() + "\ntrain.steps=10")

fixtures = root / "tests" / "fixtures"
for config in fixtures.glob("models/*/config.json"):
    tensors = {"model.transformer.wte.weight": "model-00001-of-00001.safetensors"}
    index = json.dumps({"metadata": {"total_size": 8}, "weight_map": tensors})
    header = json.dumps({"model.transformer.wte.weight":
                         {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}).encode()
    shard = len(header).to_bytes(8, "little") + header + bytes(8)
    parts = [config.read_bytes(), index.encode(), shard]
    seed("safetensors_index", config.parent.name, b"\0".join(parts))

for path in fixtures.rglob("*.gguf"):
    if path.stat().st_size < 65536:
        seed("gguf", path.name, path.read_bytes())
key = b"general.architecture"
minimal = b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little")
minimal += len(key).to_bytes(8, "little") + key + (8).to_bytes(4, "little")
minimal += (5).to_bytes(8, "little") + b"llada"
seed("gguf", "minimal", minimal)

header = {"llada_trace": 1, "program": "llada", "model": "m", "sampler": {}, "mask": 9,
          "prompt": [1, 2], "prompt_text": ["a", "b"], "length": 5}
step = {"nfe": 1, "step": 0, "block": 0, "stable": 3, "remasked": [3], "inserted": [],
        "committed": [{"position": 2, "token": 7, "confidence": 0.25, "text": "c"}]}
seed("trace", "one", json.dumps(header) + "\n" + json.dumps(step) + "\n")

rows = [{"prompt": "a", "response": "b"}, {"messages": None, "prompt": "a", "response": "b"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}]
rows += [{"messages": json.dumps(rows[2]["messages"])}, {"prompt": rows[2]["messages"][:1], "completion": "b"},
         {"instruction": "a", "input": "b", "output": "c", "system": "s", "history": [["x", "y"]]}]
seed("jsonl", "rows", "\n".join(json.dumps(row) for row in rows))
seed("jsonl", "list", json.dumps(rows))
seed("jsonl", "indented", json.dumps(rows, indent=2))

seed("template", "chatml", "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}"
     "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
seed("template", "macro", "{% macro f(x, y=1) %}{{ x ~ y }}{% endmacro %}{% set ns = namespace(i=0) %}"
     "{% for m in messages if m.role != 'tool' %}{% set ns.i = ns.i + 1 %}{{ f(m.content.split(' ')[-1]) }}"
     "{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ messages | tojson(indent=2) }}")
