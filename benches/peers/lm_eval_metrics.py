"""Computes the metrics of `llada eval run --out DIR` again with the real lm-evaluation-harness.

    pip install lm_eval==0.4.13 && python lm_eval_metrics.py DIR

Takes the scores of the rows (`samples_*.jsonl`) and the newest `results_*.json`, and exits 1 where a
mean, a perplexity, a standard error or a pooled standard error differs by more than 1e-9.
"""
import json
import os
import pathlib
import sys

os.environ["DISABLE_MULTIPROC"] = "1"
from lm_eval.api import metrics  # noqa: E402

AGGREGATIONS = {
    "perplexity": metrics.perplexity,
    "word_perplexity": metrics.weighted_perplexity,
    "byte_perplexity": metrics.weighted_perplexity,
    "bits_per_byte": metrics.bits_per_byte,
}


def estimate(name, scores):
    aggregate = AGGREGATIONS.get(name.split(",")[0], metrics.mean)
    error = metrics.stderr_for_metric(aggregate, 100_000)
    return aggregate(scores), error(scores) if error and len(scores) > 1 else "N/A"


def main(folder):
    results = json.loads(max(folder.glob("results_*.json")).read_text())
    different = 0
    for task in results["configs"]:
        # A row that was done twice counts once, as its last line says.
        lines = (folder / f"samples_{task}.jsonl").read_text().splitlines()
        rows = list({row["doc_id"]: row for row in map(json.loads, lines)}.values())
        groups = {}
        for row in rows:
            groups.setdefault(row.get("group"), []).append(row)
        for name in rows[0]["metrics"]:
            scores = lambda rows: [row["metrics"][name] for row in rows]
            value, error = estimate(name, scores(rows))
            if len(groups) > 1 and name.split(",")[0] not in AGGREGATIONS:
                errors = [estimate(name, scores(g))[1] for g in groups.values()]
                sizes = [len(g) for g in groups.values()]
                known = "N/A" not in errors
                error = metrics.pooled_sample_stderr(errors, sizes) if known else "N/A"
            metric, filter_name = name.split(",")
            ours = results["results"][task]
            for key, theirs in [(name, value), (f"{metric}_stderr,{filter_name}", error)]:
                found = ours[key]
                same = found == theirs if "N/A" in (found, theirs) else abs(found - theirs) < 1e-9
                different += not same
                print(f"{'equal ' if same else 'OTHER '} {task} {key}: {found} {theirs}")
    return different > 0


sys.exit(main(pathlib.Path(sys.argv[1])))
