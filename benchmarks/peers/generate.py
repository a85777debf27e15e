"""Time the generation of a peer: python generate.py transformers|vllm --model FOLDER --pairs FILE --prompts 32 --samples 1.

Samples at temperature 1, every answer to its full length, in bfloat16. Prints one JSON line. Runs in the
environment of that peer.
"""

import argparse
import json
import time


def with_transformers(args, conversations):
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    inputs = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    model.generate(**inputs, max_new_tokens=2, do_sample=True)
    start = time.perf_counter()
    size = {"max_new_tokens": args.new_tokens, "min_new_tokens": args.new_tokens}
    model.generate(**inputs, **size, do_sample=True, top_k=0, num_return_sequences=args.samples)
    return f"transformers {transformers.__version__}", time.perf_counter() - start


def with_vllm(args, conversations):
    from vllm import LLM, SamplingParams, __version__

    engine = LLM(args.model, dtype="bfloat16", max_model_len=1024, enable_prefix_caching=False)
    params = SamplingParams(n=args.samples, temperature=1.0, max_tokens=args.new_tokens, ignore_eos=True, logprobs=0)
    engine.chat(conversations[:2], params, use_tqdm=False)
    start = time.perf_counter()
    engine.chat(conversations, params, use_tqdm=False)
    return f"vLLM {__version__}", time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["transformers", "vllm"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=48)
    args = parser.parse_args()
    with open(args.pairs) as lines:
        conversations = [json.loads(line)["prompt"] for line in lines][: args.prompts]
    name, seconds = (with_vllm if args.peer == "vllm" else with_transformers)(args, conversations)
    made = args.prompts * args.samples * args.new_tokens
    print(json.dumps({"peer": name, "tokens_per_second": made / seconds}))


if __name__ == "__main__":
    main()
