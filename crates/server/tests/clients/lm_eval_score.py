"""Tasks of lm-evaluation-harness by likelihood, through `/v1/score`.

`lm_eval --model local-completions` asks for `echo` and `logprobs`: the probability of each token given
those before it, which a mask predictor has not. This model asks for what it has, the estimate of the
whole continuation, and leaves generation to `/v1/completions`:

    LLADA_URL=http://127.0.0.1:8080 python lm_eval_score.py --model llada --tasks TASK --include_path FOLDER
"""

import json
import urllib.request

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

import checks


def post(path, body):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {checks.KEY}"}
    request = urllib.request.Request(checks.URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


@register_model("llada")
class Llada(LM):
    def __init__(self, mc_num=128, seed=1234, **_):
        super().__init__()
        self.mc_num, self.seed = int(mc_num), int(seed)

    def loglikelihood(self, requests, **_):
        # Continuations of one context are one request, so that they see the same noise.
        contexts = {}
        for number, request in enumerate(requests):
            context, continuation = request.args
            contexts.setdefault(context, []).append((number, continuation))
        found = [None] * len(requests)
        for context, asked in contexts.items():
            body = {"prompt": context, "answers": [text for _, text in asked], "greedy": True}
            scores = post("/v1/score", {**body, "mc_num": self.mc_num, "seed": self.seed})["scores"]
            for (number, _), score in zip(asked, scores):
                found[number] = (score["log_likelihood"], score["is_greedy"])
        return found

    def loglikelihood_rolling(self, requests, **_):
        raise NotImplementedError("texts without a context: see `llada eval`")

    def generate_until(self, requests, **_):
        texts = []
        for request in requests:
            prompt, options = request.args
            options = dict(options)
            options.pop("do_sample", None)
            tokens, stop = options.pop("max_gen_toks", 256), options.pop("until", [])
            body = {"prompt": prompt, "max_tokens": tokens, "stop": stop, "seed": self.seed}
            body |= {"temperature": 0, **options}
            texts.append(post("/v1/completions", body)["choices"][0]["text"])
        return texts


if __name__ == "__main__":
    cli_evaluate()
