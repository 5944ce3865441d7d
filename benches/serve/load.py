#!/usr/bin/env python3
"""Loads a server: `load.py storm URL` for faults, `load.py speed URL` for numbers. Needs Python alone.

storm: many connections with answers of mixed lengths; of every ten requests two leave in the middle, one reads slowly, and one is
no request at all. Every admitted request that stays must be answered once, whole. Prints one line a second, and at the end what came
of each kind and how the server's memory went (with --pid).

speed: so many requests at a time, each as soon as the last one is answered; prints useful tokens a second, and p50 and p99 of the
first stable text and of the whole answer.
"""
import argparse, asyncio, collections, json, random, statistics, time
from urllib.parse import urlsplit


def request(url, body, path, key=None):
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{auth}"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n").encode() + data


async def connect(url):
    return await asyncio.open_connection(url.hostname, url.port, limit=1 << 20)


async def ask(url, body, path, leave=None, slow=0.0):
    """Sends a request and reads its stream: status, whether it ended well, times of first text and end, tokens."""
    begun = time.perf_counter()
    reader, writer = await connect(url)
    status, first, ended, tokens, ends = None, None, False, 0, 0
    try:
        writer.write(request(url, body, path))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        async for line in reader:
            if slow:
                await asyncio.sleep(slow)
            if leave is not None and time.perf_counter() - begun > leave:
                return "left", first, None, 0
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                ended, ends = True, ends + 1
                continue
            chunk = json.loads(line[6:])
            choice = (chunk.get("choices") or [{}])[0]
            text = choice.get("text") or (choice.get("delta") or {}).get("content")
            if text and first is None:
                first = time.perf_counter() - begun
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    finally:
        writer.close()
    if status == 200:
        assert ends == 1, f"an answer ended {ends} times"
    return ("ok" if ended else "cut") if status == 200 else str(status), first, time.perf_counter() - begun, tokens


GARBAGE = [b"", b"{", b"\x00\xff" * 100, b'{"messages": 7}', b'{"messages": [], "steps": -1}', b"[" * 5000]


async def storm(args):
    url, rng = urlsplit(args.url), random.Random(1)
    counts, memory, stop = collections.Counter(), [], time.time() + args.seconds

    async def worker(i):
        while time.time() < stop:
            kind = rng.random()
            body = {"messages": [{"role": "user", "content": "Tell me a story." * rng.randint(1, 3)}], "stream": True,
                    "max_tokens": rng.choice([1, 4, 16, 48]), "seed": rng.randint(0, 999), "temperature": rng.choice([0, 0.8])}
            try:
                if kind < 0.1:
                    data = rng.choice(GARBAGE)
                    flood = b"".join(b"x-%d: y\r\n" % n for n in range(500)) if rng.random() < 0.3 else b""
                    reader, writer = await connect(url)
                    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + flood
                                 + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data) + data)
                    answer = await asyncio.wait_for(reader.read(1 << 16), 60)
                    assert not answer or answer.split(b" ")[1][:1] == b"4", answer[:100]
                    counts["garbage refused"] += 1
                    writer.close()
                    continue
                leave = rng.random() if kind < 0.3 else None
                slow = 0.05 if 0.3 <= kind < 0.4 else 0.0
                outcome, *_ = await asyncio.wait_for(ask(url, body, "/v1/chat/completions", leave, slow), 300)
                counts[outcome] += 1
                if outcome == "429":
                    await asyncio.sleep(rng.random() * 2)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                counts[f"connection: {type(error).__name__}"] += 1
                await asyncio.sleep(0.2)
            except asyncio.TimeoutError:
                counts["no answer in time"] += 1

    async def watch():
        while time.time() < stop:
            await asyncio.sleep(min(10, args.seconds / 10))
            if args.pid:
                status = open(f"/proc/{args.pid}/status").read()
                memory.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
            print(f"{int(stop - time.time()):5} s left", dict(counts), f"{memory[-1]} MiB" if memory else "", flush=True)

    await asyncio.gather(watch(), *(worker(i) for i in range(args.connections)))
    print(dict(counts), "memory in MiB:", memory)


async def speed(args):
    url = urlsplit(args.url)
    for together in args.together:
        results, number = [], iter(range(args.requests * together))

        async def worker():
            for i in number:
                body = {"stream": True, "stream_options": {"include_usage": True}, "seed": i, **json.loads(args.body)}
                results.append(await ask(url, body, args.path))

        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(together)))
        wall = time.perf_counter() - begun
        bad = [r for r in results if r[0] != "ok"]
        good = [r for r in results if r[0] == "ok"]
        if not good:
            print(f"{together:4} at a time: all failed: {bad[:3]}")
            continue
        of = lambda values, share: sorted(values)[min(len(values) - 1, int(share * len(values)))]
        firsts, wholes = [r[1] or r[2] for r in good], [r[2] for r in good]
        print(f"{together:4} at a time: {sum(r[3] for r in good) / wall:8.1f} useful tokens/s, {len(good)} answers"
              f" ({len(bad)} failed) in {wall:.1f} s; first p50 {of(firsts, .5):.3f} p99 {of(firsts, .99):.3f} s;"
              f" whole p50 {of(wholes, .5):.3f} p99 {of(wholes, .99):.3f} s", flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["storm", "speed"])
parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
parser.add_argument("--connections", type=int, default=1000)
parser.add_argument("--seconds", type=float, default=600)
parser.add_argument("--pid", type=int)
parser.add_argument("--together", type=lambda s: [int(n) for n in s.split(",")], default=[1, 4, 16, 64])
parser.add_argument("--requests", type=int, default=4, help="requests of each of those at a time")
parser.add_argument("--path", default="/v1/chat/completions")
parser.add_argument("--body", default='{"messages": [{"role": "user", "content": "Tell me a story."}]}')
arguments = parser.parse_args()
asyncio.run({"storm": storm, "speed": speed}[arguments.what](arguments))
