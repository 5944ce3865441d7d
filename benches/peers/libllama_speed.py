"""libllama on the clock: the peer of `cargo bench --bench inference`.

usage: libllama_speed.py MODEL.gguf [key=value ...]

Speaks the benches' protocol (see `duel/mod.rs`). A case is the length of a sequence, one pass of which is
timed with the logits of its last `wanted` positions; or `generate`, the official sampler: `steps`
passes over `prompt` + `response` tokens, after each of which the most confident of all masked
positions is kept. For it a second time is printed, that of the passes alone, without choosing the
tokens, which numpy does here. Sizes: length (the longest sequence), wanted, threads, prompt, response;
`flash=auto` lets libllama choose its attention.
"""

import resource
import sys
import time

import numpy as np

import libllama


def generate(model, prompt, response):
    """The official schedule of one token for each step; the seconds of the passes alone."""
    mask = model.width - 1
    ids = prompt + [mask] * response
    passes = 0.0
    for _ in range(response):
        masked = [i for i, token in enumerate(ids) if token == mask]
        start = time.perf_counter()
        rows = model.decode(ids, masked)
        passes += time.perf_counter() - start
        tokens = [int(row.argmax()) for row in rows]
        confidence = [1.0 / np.exp(row - row[token]).sum() for row, token in zip(rows, tokens)]
        best = int(np.argmax(confidence))
        # Like the reference, but for a mask that is predicted: it would stay open for ever.
        ids[masked[best]] = tokens[best] if tokens[best] != mask else 0
    return passes


def main():
    path, *rest = sys.argv[1:]
    size = dict(word.split("=") for word in rest)
    flash = size.pop("flash", "off")
    size = {key: int(value) for key, value in size.items()}
    length = max(size["length"], size.get("prompt", 0) + size.get("response", 0))
    model = libllama.Model(path, length, size["threads"], flash)
    ids = np.random.default_rng(0).integers(0, model.width - 1, length).tolist()
    print("ready", flush=True)
    for line in sys.stdin:
        _, passes, case = line.split()
        start, parts = time.perf_counter(), 0.0
        for _ in range(int(passes)):
            if case == "generate":
                parts += generate(model, ids[: size["prompt"]], size["response"])
            else:
                n = int(case)
                model.decode(ids[:n], range(max(0, n - size["wanted"]), n))
        seconds = time.perf_counter() - start
        print(seconds, *([parts] if case == "generate" else []), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


main()
