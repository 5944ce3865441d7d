"""Runs the checks of a module against the server of `LLADA_URL`, and tells of each."""

import json
import os
import sys
import traceback
import urllib.request

URL = os.environ.get("LLADA_URL", "http://127.0.0.1:8080").rstrip("/")
KEY = os.environ.get("LLADA_API_KEY", "none")


def model():
    """The first model of the server, as `/v1/models` tells of it."""
    request = urllib.request.Request(f"{URL}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["data"][0]


def needs(tokens):
    """Skips a check whose prompt would not fit the model."""
    length = model().get("max_model_len", 0)
    if length < tokens:
        raise Skip(f"the model reads {length} tokens, and this takes {tokens}")


class Skip(Exception):
    """Why a check cannot be made."""


def run(checks):
    """Calls every function whose name begins with `check_`; exits with 1 if one fails."""
    failed = 0
    for name, check in checks.items():
        if not name.startswith("check_"):
            continue
        try:
            check()
            print(f"ok    {name}")
        except Skip as why:
            print(f"skip  {name}: {why}")
        except Exception:
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}")
    sys.exit(1 if failed else 0)
