"""Peak memory of the phases of a stage: pure formulas, in bytes.

P: parameters of a model. A: those that are trained (P, or an adapter's). w: bytes of a weight (2 or 4).
"""

from dataclasses import dataclass

from tutelage.planning.shape import Shape

PROGRAM = 600 * 2**20  # the interpreter with torch and transformers, measured
LOGITS_AT_ONCE = 2**23  # as engine/logprobs.py
GRADIENTS_AT_ONCE = 2**26
UPDATED_AT_ONCE = 2**23  # as engine/optimizer.py
SLACK = 1.3  # what the allocator holds beside a pass: passes differ in size, and their holes are not given back


@dataclass(frozen=True)
class Work:
    """What one update of a stage does.

    tokens: most tokens in one micro-batch; targets: those of them that carry a loss on logits (0: a scalar head).
    micros: micro-batches of an update. rows, context: sequences that are sampled together, and their longest.
    """

    tokens: int
    targets: int
    micros: int
    rows: int = 0
    context: int = 0


def weights(shape: Shape, w: int) -> int:
    """w P."""
    return w * shape.parameters


def optimizer(trained: int, w: int, moment: int) -> int:
    """Float32 masters (none beside float32 weights) and Adam's two moments: (4 + 2 m) A."""
    return ((4 if w == 2 else 0) + 2 * moment) * trained


def gradients(trained: int, w: int, micros: int) -> int:
    """w A; with several micro-batches 4 A for their sum beside the newest one's."""
    return w * trained if micros == 1 else (4 + w) * trained


def activations(shape: Shape, work: Work, w: int, again: bool = False) -> int:
    """What the backward pass keeps, and the gradient of the part that it is at (about one layer's worth).

    Adapters keep nothing more of size: their products are r wide. again: each layer keeps its input alone (H), and
    the one that is computed again has all of it.
    """
    layer = shape.activation // shape.layers
    kept = shape.layers * shape.hidden + layer if again else shape.activation
    return w * work.tokens * (kept + layer)


def logits(shape: Shape, work: Work, w: int, trained_head: bool) -> int:
    """Chunks of logits in float32, their gradients in the model's type, and the head's own gradient."""
    elements = work.targets * shape.vocabulary
    head = w * shape.vocabulary * shape.hidden if trained_head and elements else 0
    return 2 * 4 * min(elements, LOGITS_AT_ONCE) + w * min(elements, GRADIENTS_AT_ONCE) + head


def training_pass(shape: Shape, work: Work, w: int, adapters: bool, again: bool = False) -> int:
    """Activations and logits of the largest pass, and the allocator's share (measured: 1.2 to 1.5)."""
    return round(SLACK * (activations(shape, work, w, again) + logits(shape, work, w, not adapters)))


def gathered(shape: Shape, w: int) -> int:
    """Of a sharded model: the weights that are whole at a time (the root, and the layer beside the next one), and the
    gradient of the largest of them, in the model's type and in the float32 that is sent."""
    layer = shape.layer
    root = shape.parameters - shape.layers * layer
    return w * (root + 2 * layer) + (w + 4) * max(root, layer)


def update(shape: Shape, trained: int, w: int) -> int:
    """Float32 copies of the gradients that one fused update takes: a bounded number, or the largest matrix."""
    largest = min(trained, max(UPDATED_AT_ONCE, shape.vocabulary * shape.hidden))
    return 4 * largest if w == 2 else 0


def inference(shape: Shape, work: Work, w: int) -> int:
    """A pass without gradient holds the widest layer's tensors."""
    return w * work.tokens * (4 * shape.hidden + 2 * shape.query + 4 * shape.feed_forward)


def sampling(shape: Shape, work: Work, w: int) -> int:
    """Keys and values of every row, the weights laid out anew for decoding, logits of a step."""
    return cache(shape, work.rows, work.context, w) + weights(shape, w) + 3 * 4 * work.rows * shape.vocabulary


def cache(shape: Shape, rows: int, tokens: float, w: int) -> int:
    """Keys and values of rows of so many tokens: 2 w layers K rows tokens."""
    return round(2 * w * shape.layers * shape.key * rows * tokens)


def checking(shape: Shape, w: int) -> int:
    """The first and the last save load the model again, and compare."""
    return weights(shape, w)
