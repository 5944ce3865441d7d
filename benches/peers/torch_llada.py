"""LLaDA in plain PyTorch, as fast as plain PyTorch goes: the peer of our benches.

usage: torch_llada.py train|train_bf16|forward|compiled|bf16|int8 [key=value ...]

Speaks the benches' protocol: prints `ready` when warmed up, then for every line `go N` on standard
input runs N passes and prints the seconds they took; at the end of input prints the peak memory in
bytes. Sizes come as key=value: d, layers, heads, ffn, vocab, length, batch, threads; `wanted` asks
for the logits of as many positions at the end of a sequence only, and a number after `go N` for a
shorter sequence. `int8` is PyTorch's dynamic quantisation of all linear layers.
"""

import resource
import sys
import time

import torch
import torch.ao.quantization as quantization
import torch._inductor.config as inductor
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, d, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attn_norm, self.ff_norm = nn.RMSNorm(d, eps=1e-5), nn.RMSNorm(d, eps=1e-5)
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.q, self.k, self.v, self.out = (linear(d, d) for _ in range(4))
        self.gate, self.up, self.down = linear(d, ffn), linear(d, ffn), linear(ffn, d)

    def forward(self, x, cos, sin):
        b, l, d = x.shape
        h = self.attn_norm(x)
        q, k, v = (p(h).view(b, l, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + self.out(a.transpose(1, 2).reshape(b, l, d))
        h = self.ff_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Llada(nn.Module):
    def __init__(self, d, layers, heads, ffn, vocab, length):
        super().__init__()
        self.wte = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList(Block(d, heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(d, eps=1e-5)
        self.head = nn.Linear(d, vocab, bias=False)
        inv = 1.0 / (10000.0 ** (torch.arange(0, d // heads, 2).float() / (d // heads)))
        angle = torch.outer(torch.arange(length).float(), inv)
        angle = torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, masked=None):
        x, l = self.wte(ids), ids.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:l], self.sin[:l])
        x = self.norm(x)
        return self.head(x if masked is None else x[masked])


def train_step(model, optimizer, ids, mask_id, autocast):
    """One step of Eq. 3; logits at the masked positions only, which is the kinder form."""
    b, l = ids.shape
    p = (1 - 1e-3) * torch.rand(b, 1) + 1e-3
    masked = torch.rand(b, l) < p
    noisy = torch.where(masked, mask_id, ids)
    with autocast:
        logits = model(noisy, masked)
    logits = logits.float()
    nll = F.cross_entropy(logits, ids[masked], reduction="none")
    loss = (nll / p.expand(b, l)[masked]).sum() / (b * l)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def main():
    mode = sys.argv[1]
    size = {k: int(v) for k, v in (a.split("=") for a in sys.argv[2:])}
    torch.manual_seed(0)
    torch.set_num_threads(size["threads"])
    names = ("d", "layers", "heads", "ffn", "vocab", "length")
    model = Llada(*(size[n] for n in names))
    shape = (size["batch"], size["length"])
    ids = torch.randint(0, size["vocab"] - 1, shape)
    is_training = mode.startswith("train")
    if is_training:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=mode == "train_bf16")
        run = lambda: train_step(model, optimizer, ids, size["vocab"] - 1, autocast)
    else:
        model.eval()
        forward = model
        if mode == "compiled":
            inductor.freezing = True
            forward = torch.compile(model)
        elif mode == "bf16":
            forward = model.bfloat16()
        elif mode == "int8":
            forward = quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8, inplace=True)
        last = slice(-size["wanted"], None) if "wanted" in size else slice(None)
        run = lambda length=None: forward(ids[:, :length], (slice(None), last))
    with torch.set_grad_enabled(is_training):
        for _ in range(3):
            run()
        print("ready", flush=True)
        for line in sys.stdin:
            passes, *case = (int(word) for word in line.split()[1:])
            start = time.perf_counter()
            for _ in range(passes):
                run(*case)
            print(time.perf_counter() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


main()
