"""Makes the golden files of Fast-dLLM v2 (arXiv 2509.26328): a tiny model of Qwen2.5's shape with random
weights, its logits under the block-causal mask, and trajectories of the published `generate()`.

    pip install numpy safetensors
    python fast_dllm_v2_fixtures.py ../../tests/fixtures

An implementation of its own in float64, from what the model's code on the hub does, not with it. Weights
are rounded to f32 first. A case is taken only where no decision is close: arg-max logits 1e-3 apart,
confidences and thresholds 1e-3, so that an engine in f32 decides the same.
"""

import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, INTER, VOCAB = 48, 2, 3, 1, 16, 64, 180
MASK, EOS, THETA, EPS = 179, 178, 1_000_000.0, 1e-6
CLOSE = 1e-3


def make_weights(rng):
    """Random weights, large enough that predictions differ and depend on what is attended to."""

    def matrix(rows, columns, gain=1.0):
        return rng.normal(0, gain / np.sqrt(columns), (rows, columns)).astype(np.float32)

    def near_one(n):
        return (1 + 0.1 * rng.normal(size=n)).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": rng.normal(0, 1, (VOCAB, HIDDEN)).astype(np.float32),
        "model.norm.weight": near_one(HIDDEN),
        "lm_head.weight": matrix(VOCAB, HIDDEN, 4.0),
    }
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        for projection, rows in [("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)]:
            weights[f"{name}self_attn.{projection}_proj.weight"] = matrix(rows, HIDDEN, 2.0)
            bias = rng.normal(0, 0.5, rows).astype(np.float32)
            weights[f"{name}self_attn.{projection}_proj.bias"] = bias
        weights[f"{name}self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * HEAD, 2.0)
        weights[f"{name}mlp.gate_proj.weight"] = matrix(INTER, HIDDEN)
        weights[f"{name}mlp.up_proj.weight"] = matrix(INTER, HIDDEN)
        weights[f"{name}mlp.down_proj.weight"] = matrix(HIDDEN, INTER)
        weights[f"{name}input_layernorm.weight"] = near_one(HIDDEN)
        weights[f"{name}post_attention_layernorm.weight"] = near_one(HIDDEN)
    return weights


def config(block):
    return {
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
            "AutoModel": "modeling.Fast_dLLM_QwenModel",
            "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
        },
        "model_type": "Fast_dLLM_Qwen",
        "torch_dtype": "float32",
        "attention_dropout": 0.0,
        "bd_size": block,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTER,
        "layer_types": ["full_attention"] * LAYERS,
        "max_position_embeddings": 256,
        "max_window_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": EPS,
        "rope_scaling": None,
        "rope_theta": THETA,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB,
    }


class Model:
    """The transformer; what it keeps of a pass is what the caller says."""

    def __init__(self, weights):
        self.w = {name: tensor.astype(np.float64) for name, tensor in weights.items()}

    def rms(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * self.w[name + ".weight"]

    def heads(self, x, name, count):
        x = x @ self.w[name + ".weight"].T + self.w[name + ".bias"]
        return x.reshape(len(x), count, HEAD)

    @staticmethod
    def rotate(x, positions):
        angles = positions[:, None] * THETA ** (-np.arange(0, HEAD, 2) / HEAD)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        first, second = x[..., : HEAD // 2], x[..., HEAD // 2 :]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    def forward(self, tokens, start, allowed, before, replace=None):
        """Logits of `tokens`, which stand from position `start` on. `before` has keys and values of each
        layer that they may see beside their own; `replace` is where in `before` theirs belong, instead of
        after it. `allowed` says which of all keys each token sees; None is all. Gives what each layer
        then holds too."""
        x = self.w["model.embed_tokens.weight"][tokens]
        positions = np.arange(start, start + len(tokens))
        held = []
        for layer in range(LAYERS):
            name = f"model.layers.{layer}."
            h = self.rms(x, name + "input_layernorm")
            q = self.rotate(self.heads(h, name + "self_attn.q_proj", HEADS), positions)
            k = self.rotate(self.heads(h, name + "self_attn.k_proj", KV_HEADS), positions)
            v = self.heads(h, name + "self_attn.v_proj", KV_HEADS)
            if before is not None:
                old_k, old_v = before[layer]
                if replace is None:
                    k, v = np.concatenate([old_k, k]), np.concatenate([old_v, v])
                else:
                    new_k, new_v, k, v = k, v, old_k.copy(), old_v.copy()
                    k[replace : replace + len(tokens)] = new_k
                    v[replace : replace + len(tokens)] = new_v
            held.append((k, v))
            group = HEADS // KV_HEADS
            scores = np.einsum("qhd,khd->hqk", q, np.repeat(k, group, 1)) / np.sqrt(HEAD)
            if allowed is not None:
                scores = np.where(allowed[None], scores, -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            out = np.einsum("hqk,khd->qhd", scores, np.repeat(v, group, 1)).reshape(len(tokens), -1)
            x = x + out @ self.w[name + "self_attn.o_proj.weight"].T
            h = self.rms(x, name + "post_attention_layernorm")
            gate = h @ self.w[name + "mlp.gate_proj.weight"].T
            up = h @ self.w[name + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[name + "mlp.down_proj.weight"].T
        return self.rms(x, "model.norm") @ self.w["lm_head.weight"].T, held

    def by_blocks(self, tokens, block, start=0, before=None):
        """As above under the mask by blocks, which counts from position 0."""
        queries = (start + np.arange(len(tokens))) // block
        keys = np.arange(start + len(tokens)) // block
        return self.forward(tokens, start, queries[:, None] >= keys[None], before)


class Close(Exception):
    """A decision that another implementation might take otherwise."""


class Case:
    """One run of `generate()`, with every state that it goes through."""

    def __init__(self, model, prompt, length, block, small, threshold, cache, eos, temperature, top_p, rng):
        self.model, self.block, self.small, self.threshold = model, block, small, threshold
        self.cache, self.eos, self.temperature, self.top_p = cache, eos, temperature, top_p
        self.rng, self.prompt = rng, len(prompt)
        self.states, self.kinds, self.ranges, self.sampled = [], [], [], []
        self.margin = self.gap = self.distance = np.inf
        self.output = self.run(list(prompt), length)

    def note(self, x, kind, first, last):
        self.states.append(list(x))
        self.kinds.append(kind)
        self.ranges.append([first, last])

    def best(self, logits):
        """The most probable token; by a margin, and not the mask, which would never go away."""
        order = np.sort(logits)
        self.margin = min(self.margin, order[-1] - order[-2])
        token = int(logits.argmax())
        if token == MASK:
            raise Close
        return token

    def draw(self, logits):
        """A token and its probability among those that may be drawn."""
        if self.temperature == 0:
            token = self.best(logits)
            return token, float(soft_max(logits)[token])
        p = soft_max(logits / self.temperature)
        order = np.argsort(-p, kind="stable")
        sums = np.cumsum(p[order])
        # A token stays while those before it do not have top_p together.
        stays = np.concatenate([[True], sums[:-1] <= self.top_p])
        if np.abs(sums - self.top_p).min() < 1e-5:
            raise Close
        kept = np.zeros_like(p)
        kept[order[stays]] = p[order[stays]]
        kept /= kept.sum()
        token = int(self.rng.choice(len(p), p=kept))
        if token == MASK:
            raise Close
        return token, float(kept[token])

    def ended(self, x, first):
        """Whether the text has ended, from `first` on, with no mask before."""
        if self.eos not in x[first:]:
            return False
        return MASK not in x[first : x.index(self.eos, first)]

    def run(self, x, length):
        block, original, past = self.block, len(x), None
        if len(x) > block:
            whole = len(x) // block * block
            self.note(x, "prefill", 0, whole)
            logits, past = self.model.by_blocks(np.array(x[:whole]), block)
            if len(x) == whole:
                x.append(self.best(logits[-1]))
        for _ in range(length // block):
            if self.eos in x[original:]:
                break
            first = len(x)
            x = x + [MASK] * (block - first % block)
            past = self.fill(x, first, past)
        self.last = list(x)
        if self.eos in x[original:]:
            x = x[: x.index(self.eos, original) + 1]
        return x

    def fill(self, x, first, past):
        """Fills the last block of x, and adds the token that follows it."""
        start = len(x) - self.block
        if past is None and start > 0:
            raise Close
        block_cache = None
        for at in range(0, self.block, self.small):
            sub = range(start + at, start + at + self.small)
            while any(x[i] == MASK for i in sub) and not self.ended(x, first):
                whole = block_cache is None or x[sub[0]] == MASK
                if not self.cache or whole:
                    self.note(x, "denoise", start, len(x))
                    tokens = np.array(x[start:])
                    logits, held = self.model.by_blocks(tokens, self.block, start, past)
                    block_cache = held if self.cache else None
                    rows = {i: logits[max(i - start - 1, 0)] for i in sub}
                else:
                    self.note(x, "denoise", sub[0], sub[-1] + 1)
                    tokens = np.array(x[sub[0] : sub[-1] + 1])
                    logits, block_cache = self.model.forward(tokens, sub[0], None, block_cache, sub[0])
                    rows = {i: logits[max(i - sub[0] - 1, 0)] for i in sub}
                self.commit(x, [i for i in sub if x[i] == MASK], rows)
        if self.ended(x, first):
            return past
        self.note(x, "store", start, len(x))
        logits, past = self.model.by_blocks(np.array(x[start:]), self.block, start, past)
        x.append(self.best(logits[-1]))
        return past

    def commit(self, x, masks, rows):
        drawn = {i: self.draw(rows[i]) for i in masks}
        self.sampled.append([drawn[i][0] if i in drawn else None for i in range(len(x))])
        sure = sorted((p for _, p in drawn.values()), reverse=True)
        self.distance = min(self.distance, min(abs(p - self.threshold) for p in sure))
        if len(sure) > 1 and sure[0] <= self.threshold:
            self.gap = min(self.gap, sure[0] - sure[1])
        for i in masks:
            token, p = drawn[i]
            if p > self.threshold or p == sure[0]:
                x[i] = token


def soft_max(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def case(model, name, rng, prompt, length, block, small, threshold, cache=False, eos=EOS, temperature=0.0,
         top_p=0.95, wants=lambda run: run.eos not in run.output[run.prompt :]):
    """A case none of whose decisions is close, of the first prompt that gives one."""
    while True:
        tokens = [int(t) for t in rng.integers(0, EOS, prompt)]
        try:
            run = Case(model, tokens, length, block, small, threshold, cache, eos, temperature, top_p, rng)
        except Close:
            continue
        if min(run.margin, run.gap, run.distance) < CLOSE or not wants(run):
            continue
        # The whole sequence, masked where nothing is yet.
        most = (prompt // block + length // block) * block + 1
        states = [state + [MASK] * (most - len(state)) for state in run.states]
        states.append(run.last + [MASK] * (most - len(run.last)))
        number = lambda x: None if np.isinf(x) else round(float(x), 6)
        record = {
            "id": name,
            "model": "j_fast_dllm_v2",
            "algorithm": "fast_dllm_v2.generate",
            "params": {
                "max_new_tokens": length,
                "block_size": block,
                "small_block_size": small,
                "threshold": threshold,
                "use_block_cache": cache,
                "temperature": temperature,
                "top_p": top_p,
            },
            "mask_id": MASK,
            "eos_id": eos,
            "prompt": [tokens],
            "attention_block": block,
            "states": [[state] for state in states],
            "forward_kind": run.kinds,
            "forward_range": run.ranges,
            "output": [run.output],
            "min_argmax_logit_margin": number(run.margin),
            "min_confidence_gap": number(run.gap),
            "min_threshold_distance": number(run.distance),
        }
        if temperature > 0:
            record["sampled_tokens"] = run.sampled
        return record


def main(out):
    rng = np.random.default_rng(20260329)
    weights = make_weights(rng)
    model = Model(weights)
    folder = out / "models/j_fast_dllm_v2"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(8), indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    ids = rng.integers(0, VOCAB, (2, 22))
    by_blocks = np.stack([model.by_blocks(row, 4)[0] for row in ids])
    full = np.stack([model.forward(row, 0, None, None)[0] for row in ids])
    causal = np.stack([model.by_blocks(row, 1)[0] for row in ids])
    save_file(
        {
            "input_ids": ids.astype(np.int64),
            "logits_block_causal_bs4": by_blocks.astype(np.float32),
            "logits_full_bidirectional": full.astype(np.float32),
            "logits_causal": causal.astype(np.float32),
        },
        out / "logits/j_fast_dllm_v2.safetensors",
    )

    stops = lambda run: run.eos in run.output[run.prompt :] and len(run.kinds) > 6
    in_block = lambda run: stops(run) and run.kinds[-1] == "denoise"
    by_threshold = lambda run: 12 < len(run.kinds) < 0.75 * (len(run.output) - run.prompt)
    cases = [
        case(model, "fd2_one_by_one", rng, 5, 24, 8, 4, 1.0),
        case(model, "fd2_threshold", rng, 5, 24, 8, 4, 0.4, wants=by_threshold),
        case(model, "fd2_sub2", rng, 11, 24, 8, 2, 0.5),
        case(model, "fd2_sub_is_block", rng, 11, 24, 8, 8, 0.5),
        case(model, "fd2_whole_prompt", rng, 16, 16, 8, 4, 0.5),
        case(model, "fd2_b32_sub8", rng, 37, 64, 32, 8, 0.6),
        case(model, "fd2_cache", rng, 5, 24, 8, 4, 1.0, cache=True),
        case(model, "fd2_cache_threshold", rng, 19, 24, 8, 4, 0.4, cache=True, wants=by_threshold),
        case(model, "fd2_cache_whole_prompt", rng, 16, 16, 8, 4, 0.6, cache=True),
        case(model, "fd2_cache_b32_sub8", rng, 37, 64, 32, 8, 0.6, cache=True),
    ]
    popular = np.bincount([t for c in cases for t in c["output"][0][len(c["prompt"][0]) :]]).argsort()
    eos = int(popular[-1])
    cases += [
        case(model, "fd2_eos", rng, 5, 32, 8, 4, 0.9, eos=eos, wants=in_block),
        case(model, "fd2_eos_cache", rng, 13, 32, 8, 4, 0.6, cache=True, eos=eos, wants=in_block),
        case(model, "fd2_eos_after_block", rng, 13, 32, 8, 4, 0.6, eos=eos,
             wants=lambda run: stops(run) and run.kinds[-1] == "store"),
        case(model, "fd2_temp0.7_top_p0.9", rng, 5, 24, 8, 4, 0.6, temperature=0.7, top_p=0.9),
        case(model, "fd2_cache_temp1.2", rng, 13, 24, 8, 4, 0.5, cache=True, temperature=1.2, top_p=0.95),
    ]
    text = ",\n".join(json.dumps(record) for record in cases)
    (out / "generate/fast_dllm_v2.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
