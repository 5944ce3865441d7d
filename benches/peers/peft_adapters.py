"""Compares `llada merge` with PEFT's `merge_and_unload`, on random models and many configurations.

usage: peft_adapters.py [LLADA]

LLADA is the program, `target/release/llada` if not given. Needs `torch`, `transformers`, `peft` and
`safetensors`. For each case PEFT makes adapters of a tiny model of LLaDA's or iLLaDA's shape and
saves them; a case may then change `adapter_config.json`, as other programs and older adapters have
it. PEFT loads the folder again and merges it, and so does LLADA: all weights must agree within 1e-6.
Where PEFT's result is not W + s*B*A of the weights on disk, LLADA must refuse and name the key.
Last, PEFT reads adapters that `llada sft` wrote.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

warnings.filterwarnings("ignore")
LLADA = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/release/llada").resolve()
WIDTH, HEADS, KV, FFN, LAYERS, VOCAB = 32, 4, 2, 48, 3, 64
TOLERANCE = 1e-6


class Block(nn.Module):
    """The matrices and norms of one block, under LLaDA's names; they are merged, not run."""

    def __init__(self):
        super().__init__()
        kv = WIDTH // HEADS * KV
        shapes = {"q_proj": (WIDTH, WIDTH), "k_proj": (WIDTH, kv), "v_proj": (WIDTH, kv)}
        shapes |= {"attn_out": (WIDTH, WIDTH), "ff_proj": (WIDTH, FFN), "up_proj": (WIDTH, FFN)}
        for name, (inputs, outputs) in {**shapes, "ff_out": (FFN, WIDTH)}.items():
            setattr(self, name, nn.Linear(inputs, outputs, bias=False))
        self.attn_norm, self.ff_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)


class Llada(nn.Module):
    """A model's tree of modules, which is all that PEFT looks at."""

    def __init__(self, vocab=VOCAB):
        super().__init__()
        blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        parts = {"wte": nn.Embedding(vocab, WIDTH), "blocks": blocks}
        parts |= {"ln_f": nn.RMSNorm(WIDTH), "ff_out": nn.Linear(WIDTH, vocab, bias=False)}
        self.model = nn.Module()
        self.model.transformer = nn.ModuleDict(parts)

    def forward(self, *_, **__):
        raise NotImplementedError


def llada(vocab=VOCAB):
    config = {
        "architectures": ["LLaDAModelLM"], "model_type": "llada", "d_model": WIDTH, "n_layers": LAYERS,
        "n_heads": HEADS, "n_kv_heads": KV, "mlp_hidden_size": FFN, "vocab_size": vocab,
        "max_sequence_length": 64, "rope": True, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "weight_tying": False, "activation_type": "silu", "block_type": "llama",
        "layer_norm_type": "rms", "mask_token_id": 2, "eos_token_id": 1,
    }
    return config, lambda: Llada(vocab)


def illada():
    config = LlamaConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV,
        intermediate_size=FFN, vocab_size=VOCAB, max_position_embeddings=64, tie_word_embeddings=False,
    )
    keys = json.loads(config.to_json_string(use_diff=False))
    keys |= {"architectures": ["ILLaDAForCausalLM"], "model_type": "illada", "mask_token_id": 5}
    return keys, lambda: LlamaForCausalLM(config)


def filled(module, seed):
    """The module with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(WIDTH))
    return module


def write_base(folder, family):
    folder.mkdir()
    config, make = family
    base = filled(make(), 0)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: w.contiguous() for name, w in base.state_dict().items()}, folder / "model.safetensors")
    return lambda: filled(make(), 0)


def merge(adapter, base, out):
    command = [LLADA, "merge", adapter, "--base", base, "-o", out, "--storage", "f32"]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def weights(model):
    return {name: w.detach() for name, w in model.state_dict().items() if "rotary" not in name}


def largest_difference(expected, out):
    found = load_file(out / "model.safetensors")
    assert expected.keys() == found.keys(), sorted(expected.keys() ^ found.keys())[:4]
    return max((expected[name].float() - found[name]).abs().max().item() for name in expected)


NAMES = ["q_proj", "k_proj", "v_proj"]
PLAIN = {"r": 4, "lora_alpha": 6, "target_modules": NAMES}
LATER = "of_a_later_version"

# What PEFT is asked for, and what is then written over its configuration.
AGREE = {
    "plain": ({}, {}),
    "alpha is a fraction": ({}, {"lora_alpha": 0.75}),
    "rsLoRA": ({"use_rslora": True}, {}),
    "rsLoRA, written afterwards": ({}, {"use_rslora": True}),
    "rank_pattern": ({"rank_pattern": {"q_proj": 2, "k_proj": 7}}, {}),
    "rank_pattern of regexes": ({"rank_pattern": {r".*\.[01]\..*q_proj": 2, r"(k|v)_proj": 3}}, {}),
    "alpha_pattern": ({"alpha_pattern": {"v_proj": 1, "q_proj": 32}}, {}),
    "the first pattern counts": ({"alpha_pattern": {r"1\..*q_proj": 3, "q_proj": 9, "proj": 2}}, {}),
    "both patterns and rsLoRA": (
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r".*\.2\..*": 5}, "use_rslora": True}, {}),
    "whole paths": ({"target_modules": ["{q0}", "v_proj"]}, {}),
    "a regex": ({"target_modules": r".*\.(q|v)_proj"}, {}),
    "a regex with lookahead": ({"target_modules": r".*\.(?!1\.)\d+\..*_proj"}, {}),
    "all-linear": ({"target_modules": "all-linear"}, {}),
    "exclude_modules": ({"exclude_modules": ["k_proj"]}, {}),
    "exclude_modules by a regex": ({"exclude_modules": r".*\.0\..*"}, {}),
    "layers_to_transform": ({"layers_to_transform": [0, 2]}, {}),
    "layers_to_transform of one": ({"layers_to_transform": 1}, {}),
    "layers_pattern": ({"layers_to_transform": [1], "layers_pattern": "{layers}"}, {}),
    "gaussian": ({"init_lora_weights": "gaussian"}, {}),
    "no start": ({"init_lora_weights": False}, {}),
    "orthogonal": ({"init_lora_weights": "orthogonal"}, {}),
    "mica": ({"init_lora_weights": "mica"}, {}),
    "eva": ({}, {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}),
    "dropout": ({"lora_dropout": 0.5}, {}),
    "a config of before 0.10": ({}, {key: "drop" for key in ["use_dora", "use_rslora", "rank_pattern",
        "alpha_pattern", "megatron_core", "layer_replication", "lora_bias", "exclude_modules"]}),
    "fewer targets than tensors": ({}, {"target_modules": ["q_proj"]}),
    "a regex of fewer": ({}, {"target_modules": r".*\.[02]\..*(q|k)_proj"}),
    "excluded afterwards": ({}, {"exclude_modules": ["v_proj"]}),
    "layers taken out afterwards": ({}, {"layers_to_transform": [2]}),
    "more targets than tensors": ({}, {"target_modules": [*NAMES, "up_proj"]}),
    "the head": ({"target_modules": ["q_proj", "{head}"]}, {}),
}

# What must be refused, and the key that is named.
REFUSED = {
    "PiSSA": ({"init_lora_weights": "pissa"}, {}, "init_lora_weights"),
    "PiSSA, fast": ({"init_lora_weights": "pissa_niter_4"}, {}, "init_lora_weights"),
    "OLoRA": ({"init_lora_weights": "olora"}, {}, "init_lora_weights"),
    "OLoRA in capitals": ({"init_lora_weights": "OLoRA"}, {}, "init_lora_weights"),
    "CorDA": ({}, {"init_lora_weights": "corda", "corda_config": {"a": 1}}, "init_lora_weights"),
    "LoRA-GA": ({}, {"init_lora_weights": "lora_ga", "lora_ga_config": {"a": 1}}, "init_lora_weights"),
    "LoftQ": ({}, {"init_lora_weights": "loftq"}, "init_lora_weights"),
    "DoRA": ({"use_dora": True}, {}, "use_dora"),
    "aLoRA": ({}, {"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    "bias": ({"bias": "all"}, {}, "bias"),
    "lora_bias": ({"lora_bias": True}, {}, "lora_bias"),
    "modules_to_save": ({"modules_to_save": ["{embedding}"]}, {}, "modules_to_save"),
    "the embedding": ({"target_modules": ["q_proj", "{embedding}"]}, {}, "target_modules"),
    "KaSA": ({}, {"kasa_config": {"beta": 1.0}}, "kasa_config"),
    "QA-LoRA": ({}, {"use_qalora": True}, "use_qalora"),
    "layer_replication": ({}, {"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    "trainable tokens": ({}, {"trainable_token_indices": [1]}, "trainable_token_indices"),
    "another method": ({}, {"peft_type": "IA3"}, "peft_type"),
    "nothing fits": ({}, {"target_modules": ["nothing"]}, "target_modules"),
    "a key that is not known": ({}, {LATER: 2.0}, LATER),
}


def named(settings, names):
    """Settings with the names that differ between the families put in."""
    text = json.dumps(settings)
    for key, name in names.items():
        text = text.replace("{" + key + "}", name)
    return json.loads(text)


def write_adapter(folder, make, settings, changes, base):
    model = get_peft_model(make(), LoraConfig(**{**PLAIN, **settings}))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 4)
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": str(base)} | changes
    config = {key: value for key, value in config.items() if value != "drop"}
    path.write_text(json.dumps(config))


def compare(root, family, names):
    base = root / "base"
    make = write_base(base, family)
    failures, worst = [], 0.0
    for number, (title, case) in enumerate([*AGREE.items(), *REFUSED.items()]):
        adapter, out = root / f"adapter-{number}", root / f"merged-{number}"
        settings, changes, *blamed = case
        if title == "all-linear" and names["head"] == "model.transformer.ff_out":
            continue  # PEFT spares the head of models of `transformers` only.
        if title == "the head" and names["head"] == "lm_head":
            blamed = ["base_model.model.lm_head.base_layer"]  # Of these it saves the base too.
        write_adapter(adapter, make, named(settings, names), changes, base)
        run = merge(adapter, base, out)
        if blamed:
            if run.returncode != 1 or f"`{blamed[0]}" not in run.stderr or out.exists():
                failures.append(f"{title}: {run.returncode} {run.stderr.strip()}")
            continue
        if run.returncode != 0:
            failures.append(f"{title}: {run.stderr.strip()}")
            continue
        merged = PeftModel.from_pretrained(make(), adapter).merge_and_unload()
        difference = largest_difference(weights(merged), out)
        changed = largest_difference(weights(make()), out)
        worst = max(worst, difference)
        if difference > TOLERANCE or changed < 0.1:
            failures.append(f"{title}: differs by {difference:.2e}, changes {changed:.2e}")
    return failures, worst


def read_ours(root):
    """PEFT merges what `llada sft` wrote."""
    def call(*arguments):
        subprocess.run([LLADA, *arguments], cwd=root, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    (root / "text.txt").write_text("abcdefgh ")
    call("tokenizer", "train", "text.txt", "--kind", "char", "-o", "tok")
    size = len(json.loads((root / "tok/tokenizer.json").read_text())["model"]["vocab"])
    config, make = llada(vocab=size + 8)
    config |= {"mask_token_id": None, "eos_token_id": None}
    make = write_base(root / "base", (config, make))
    for file in (root / "tok").iterdir():
        file.rename(root / "base" / file.name)
    rows = [json.dumps({"prompt": "abc", "response": "fedcab"[: n + 1]}) for n in range(4)]
    (root / "rows.jsonl").write_text("\n".join(rows))
    (root / "sft.toml").write_text(
        '[model]\ninit_from = "base"\n[data]\npath = "rows.jsonl"\nsequence_length = 32\n'
        '[sft]\ntemplate = "plain"\nheld_out = 0.0\n[train]\nsteps = 4\nbatch_size = 2\n'
        "[lora]\nrank = 3\nalpha = 5.0\n[optim]\nlr = 0.1\n[eval]\nevery = 0\n")
    call("sft", "sft.toml", "-o", "run")
    adapter = root / "run/checkpoints/step-4"
    assert merge(adapter, root / "base", root / "merged").returncode == 0
    merged = PeftModel.from_pretrained(make(), adapter).merge_and_unload()
    changed = largest_difference(weights(make()), root / "merged")
    return largest_difference(weights(merged), root / "merged"), changed


def main():
    families = {
        "LLaDA": (llada(), {"q0": "model.transformer.blocks.0.q_proj", "layers": "blocks",
                            "head": "model.transformer.ff_out", "embedding": "wte"}),
        "iLLaDA": (illada(), {"q0": "model.layers.0.self_attn.q_proj", "layers": "layers",
                              "head": "lm_head", "embedding": "embed_tokens"}),
    }
    failed = False
    for name, (family, names) in families.items():
        with tempfile.TemporaryDirectory() as folder:
            failures, worst = compare(pathlib.Path(folder), family, names)
        print(f"{name}: {len(AGREE)} merges, largest difference {worst:.1e}; {len(REFUSED)} refusals")
        for failure in failures:
            print(f"  FAILED {failure}")
        failed |= bool(failures)
    with tempfile.TemporaryDirectory() as folder:
        difference, changed = read_ours(pathlib.Path(folder))
    print(f"adapters of `llada sft` in PEFT: differ by {difference:.1e}, change {changed:.1e}")
    sys.exit(failed or difference > TOLERANCE or changed < 1e-3)


main()
