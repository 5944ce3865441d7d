"""Logits of libllama: the peer that judges our GGUF files.

usage: libllama.py MODEL.gguf ID,ID,... [...]      writes the logits of every position as f32
       libllama.py --agree MODEL.gguf ID,ID,...    compares them with those of `llada`'s example

Attention is as the file says: not causal for the architecture `llada`. The library is the one in
the PyPI package `xllamacpp`, which exports libllama's C interface. Structures are passed as the
library's own defaults give them; of those that differ between versions no field is named.
"""

import ctypes
import os
import subprocess
import sys

import numpy as np
import xllamacpp

REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


class Opaque(ctypes.Structure):
    """A structure passed by value, with room for more fields than it has."""

    _fields_ = [("words", ctypes.c_int32 * 256)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def library():
    folder = os.path.dirname(xllamacpp.__file__)
    name = next(f for f in os.listdir(folder) if f.startswith("xllamacpp") and ".so" in f)
    lib = ctypes.CDLL(os.path.join(folder, name))
    lib.llama_model_default_params.restype = Opaque
    lib.llama_context_default_params.restype = Opaque
    lib.llama_batch_init.restype = Batch
    for name in ("load_from_file", "get_vocab"):
        getattr(lib, "llama_model_" + name).restype = ctypes.c_void_p
    lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    lib.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
    lib.llama_init_from_model.restype = ctypes.c_void_p
    lib.llama_init_from_model.argtypes = [ctypes.c_void_p, Opaque]
    lib.llama_decode.argtypes = [ctypes.c_void_p, Batch]
    lib.llama_set_n_threads.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
    lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    lib.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    lib.llama_tokenize.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
        ctypes.c_int32, ctypes.c_bool, ctypes.c_bool,
    ]
    lib.llama_log_set(QUIET, None)
    lib.llama_backend_init()
    return lib


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def QUIET(level, text, _):
    if level == 4:  # errors
        sys.stderr.write(text.decode(errors="replace"))


class Model:
    """A file that libllama has loaded, for sequences of up to `length` tokens.

    Flash attention, which computes in f16, is off unless libllama may choose by itself (`auto`).
    """

    def __init__(self, path, length, threads=None, flash="off"):
        self.lib = library()
        parameters = self.lib.llama_model_default_params()
        self.model = self.lib.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            sys.exit(f"libllama does not load {path}")
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        parameters = self.lib.llama_context_default_params()
        for field in range(3):  # n_ctx, n_batch, n_ubatch: whole sequences at once
            parameters.words[field] = max(length, 32)
        # The only four neighbours that are all -1: rope scaling, pooling, attention, and flash
        # attention.
        at = next(i for i in range(64) if all(parameters.words[i + j] == -1 for j in range(4)))
        if flash == "off":
            parameters.words[at + 3] = 0
        self.context = self.lib.llama_init_from_model(self.model, parameters)
        if threads:
            self.lib.llama_set_n_threads(self.context, threads, threads)
        self.width = self.lib.llama_vocab_n_tokens(self.vocab)
        self.batch = self.lib.llama_batch_init(length, 0, 1)

    def tokenize(self, text):
        ids, raw = (ctypes.c_int32 * (len(text) * 4 + 8))(), text.encode()
        n = self.lib.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), False, True)
        return list(ids[:n])

    def decode(self, ids, wanted):
        """The logits at the positions `wanted`, as views that last until the next call."""
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, i, 0
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        for i in wanted:
            self.batch.logits[i] = 1
        if self.lib.llama_decode(self.context, self.batch) != 0:
            sys.exit("libllama cannot decode the sequence")
        rows = [self.lib.llama_get_logits_ith(self.context, i) for i in wanted]
        return [np.ctypeslib.as_array(row, (self.width,)) for row in rows]

    def logits(self, ids):
        return np.array(self.decode(ids, range(len(ids))))


def ours(path, ids):
    """The logits of our program."""
    program = os.environ.get("LLADA_LOGITS")
    run = [program] if program else ["cargo", "run", "-q", "--release", "-p", "llada", "--example", "logits", "--"]
    found = subprocess.run(run + [os.path.abspath(path), ids], cwd=REPOSITORY, capture_output=True, check=True)
    return np.frombuffer(found.stdout, "<f4").reshape(len(ids.split(",")), -1)


def agree(path, sequence):
    ids = [int(i) for i in sequence.split(",")]
    theirs, own = Model(path, len(ids)).logits(ids), ours(path, sequence)
    error = np.abs(theirs - own)
    same = (theirs.argmax(-1) == own.argmax(-1)).mean()
    print(
        f"{os.path.basename(path)}: {len(ids)} positions, |logit| up to {np.abs(theirs).max():.2f}; "
        f"difference at most {error.max():.2e}, mean {error.mean():.2e}; "
        f"same arg-max at {100 * same:.1f} %"
    )


def main():
    if sys.argv[1] == "--agree":
        agree(sys.argv[2], sys.argv[3])
        return
    sequences = [[int(i) for i in ids.split(",")] for ids in sys.argv[2:]]
    model = Model(sys.argv[1], max(map(len, sequences)))
    for sequence in sequences:
        sys.stdout.buffer.write(model.logits(sequence).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
