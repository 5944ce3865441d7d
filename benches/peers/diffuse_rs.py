"""diffuse-rs on the clock: a peer of `cargo bench --bench inference`.

usage: diffuse_rs.py PROGRAM MODEL.gguf [key=value ...]

Speaks the benches' protocol (see `duel/mod.rs`) for a program that does not: each turn starts its
`bench`, which warms up with one generation and then times its own, so that neither start nor loading is
counted; processor time here would count both, and is not told. A case is the length of a sequence: one
step over it, the last `wanted` tokens of which are masked. `generate` fills `response` masks after
`prompt` tokens in `steps` steps by confidence, over the whole sequence in each step, or with
`cached=1` over what its cache between steps leaves. Sizes: length, wanted, threads, prompt, response, steps, block.
"""

import random
import re
import resource
import subprocess
import sys


def seconds(program, model, threads, prompt, masks, steps, options, passes):
    """Of `passes` generations, as the program measures them."""
    tokens = ",".join(map(str, prompt))
    command = [program, "bench", "--model", model, "--threads", str(threads), "--tokens", tokens]
    command += ["--batch-size", str(masks), "--n-steps", str(steps), "--reps", str(passes)]
    command += ["--remasking", "low_confidence", "--schedule", "linear", *options]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        sys.exit(f"{program} failed:\n{said.stderr}")
    # Whole milliseconds; what it says of each round has two digits less.
    return float(re.search(r"^total_time_ms: (\d+)$", said.stdout, re.M)[1]) / 1e3


def main():
    program, model, *rest = sys.argv[1:]
    size = {key: int(value) for key, value in (word.split("=") for word in rest)}
    whole = [] if size.get("cached") else ["--no-cache"]
    block = ["--block-length", str(size["block"])] if size.get("block") else []
    draw = random.Random(0)
    # Small ids are in every vocabulary.
    ids = [draw.randrange(256, 4096) for _ in range(max(size["length"], size.get("prompt", 0)))]
    print("ready", flush=True)
    for line in sys.stdin:
        _, passes, case = line.split()
        if case == "generate":
            work = ids[: size["prompt"]], size["response"], size["steps"], whole + block
        else:
            masks = min(size["wanted"], int(case) - 1)
            work = ids[: int(case) - masks], masks, 1, whole
        print(seconds(program, model, size["threads"], *work, int(passes)), flush=True)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, flush=True)


main()
