#!/usr/bin/env python3
"""Two replicas behind HAProxy (deploy/haproxy.cfg), one killed under load: `replicas.py PROGRAM`. Needs Python and haproxy.

Clients hold conversations (`x-session-id`) and ask each question with a seed of its own; a request that fails is sent again. Told at
the end: requests, those that a client had to send again and why, answers that differ from those of an undisturbed replica (none may),
and how long answers took.
"""
import collections, concurrent.futures, http.client, json, pathlib, signal, subprocess, sys, time

PROGRAM, ROOT = sys.argv[1], pathlib.Path(__file__).resolve().parents[2]
SECONDS, CLIENTS, PORTS = 30, 16, (8081, 8082)


def replica(port):
    log = open(f"/tmp/replica-{port}.log", "w")
    server = subprocess.Popen([PROGRAM, "serve", "--port", str(port), "--threads", "1", "-v"], stderr=log)
    for _ in range(600):
        try:
            if ask(port, "/health", None)[0] == 200:
                return server
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("a replica does not answer")


def ask(port, path, body, session="none"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"content-type": "application/json", "x-session-id": session}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def question(seed):
    return {"messages": [{"role": "user", "content": f"Tell me story {seed % 7}."}], "seed": seed, "temperature": 0.7,
            "max_tokens": 8 + seed % 32}


def text(raw):
    return json.loads(raw)["choices"][0]["message"]["content"]


servers = {port: replica(port) for port in PORTS}
proxy = subprocess.Popen(["haproxy", "-q", "-f", str(ROOT / "deploy/haproxy.cfg")])
time.sleep(2)
expected = {seed: text(ask(PORTS[0], "/v1/chat/completions", question(seed))[1]) for seed in range(64)}
counts, times, stop = collections.Counter(), [], time.time() + SECONDS


def client(number):
    seed = number
    while time.time() < stop:
        seed = (seed * 13 + 5) % 64
        begun = time.time()
        for attempt in range(20):
            try:
                status, raw = ask(8080, "/v1/chat/completions", question(seed), f"conversation-{number}")
            except (OSError, http.client.HTTPException) as error:
                status, raw = type(error).__name__, b""
            if status == 200:
                break
            counts[f"sent again after {status}"] += 1
            time.sleep(0.2)
        else:
            counts["lost"] += 1
            continue
        counts["answered"] += 1
        counts["different"] += text(raw) != expected[seed]
        times.append(time.time() - begun)


with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
    clients = [pool.submit(client, number) for number in range(CLIENTS)]
    time.sleep(SECONDS / 3)
    print("killing one of two", flush=True)
    servers[PORTS[0]].send_signal(signal.SIGKILL)
    servers[PORTS[0]].wait()
    time.sleep(SECONDS / 3)
    print("starting it again", flush=True)
    servers[PORTS[0]] = replica(PORTS[0])
    [client.result() for client in clients]

times.sort()
print(dict(counts), f"p50 {times[len(times) // 2]:.3f} s, p99 {times[int(len(times) * .99)]:.3f} s, slowest {times[-1]:.3f} s")
proxy.terminate()
for server in servers.values():
    server.terminate()
    print("a replica ended with", server.wait(60))
