"""One file a method: pure functions on tensors. No I/O, no config, nothing but torch.

Per-token tensors are packed: [T] tokens of N sequences end to end, with offsets [N+1] (int64).
Losses come back unreduced; the caller masks, sums and divides by a normalizer counted over all micro-batches.
Shape suffixes: _T tokens, _N sequences or completions, _P prompts, _M pairs, _V vocabulary.
"""
