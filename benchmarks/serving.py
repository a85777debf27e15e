"""Tokens a second through `tutelage serve` at 32 concurrent requests, beside the sampler's own rate on the same prompts.

    python benchmarks/serving.py [--model world] [--concurrency 32] [--requests 128] [--max-tokens 128] [--rounds 3]

The server runs in a process of its own, the clients in threads of this one; the two are timed alternately, so that
a busy machine slows both. Prints one JSON object.
"""

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tutelage.data.sources import prompts
from tutelage.data.templates import end_token_id, render_prompt
from tutelage.engine.sampling import SamplingParams, row_seed, sample
from tutelage.models import load_policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="world")
    parser.add_argument("--data", default="world")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()

    asked = [p.messages for p in prompts(options.data, "report", options.requests, 5)]
    policy = load_policy(options.model, options.dtype)
    ids = [render_prompt(policy.tokenizer, messages) for messages in asked]
    seeds = [[row_seed(i, "completion", 0)] for i in range(len(asked))]
    params, ends = SamplingParams(options.max_tokens), [end_token_id(policy.tokenizer)]

    words = ["serve", "--model", f"bench={options.model}", "--port", "0", "--dtype", options.dtype]
    server = subprocess.Popen([sys.executable, "-m", "tutelage", *words], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = re.search(r"http://([^:/]+):(\d+)", server.stderr.readline())
        if said is None:
            raise SystemExit(server.stderr.read())
        address = said[1], int(said[2])

        def request(place: int) -> int:
            connection = http.client.HTTPConnection(*address, timeout=600)
            body = {"model": "bench", "messages": asked[place], "max_tokens": options.max_tokens, "seed": place}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            connection.close()
            return answer["usage"]["completion_tokens"]

        def sampler() -> float:
            start = time.perf_counter()
            drawn = sample(policy.model, ids, seeds, params, ends, batch_size=options.concurrency)
            return sum(len(one.tokens) for row in drawn for one in row) / (time.perf_counter() - start)

        def served() -> float:
            start = time.perf_counter()
            with ThreadPoolExecutor(options.concurrency) as pool:
                tokens = sum(pool.map(request, range(len(asked))))
            return tokens / (time.perf_counter() - start)

        sampler(), served()  # warm
        rates = [(sampler(), served()) for _ in range(options.rounds)]
    finally:
        server.terminate()
        server.wait(timeout=30)
    own, ours = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(s / o for o, s in rates)
    result = {
        "sampler_tokens_per_second": round(own),
        "served_tokens_per_second": round(ours),
        "ratio": round(ratio, 3),
    }
    print(json.dumps({**result, "concurrency": options.concurrency, "model": options.model}))


if __name__ == "__main__":
    main()
