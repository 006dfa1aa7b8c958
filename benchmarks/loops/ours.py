"""mlp_tape's own loop: `train.train`, eager or compiled."""

from typing import Any

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("mlp_tape, compiled", "mlp_tape, eager")


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    from mlp_tape.system import tensorflow_setup

    tensorflow_setup.import_tensorflow()
    from mlp_tape.tensors import network
    from mlp_tape.training import loop, train_step

    names = [f"{kind}{layer}" for layer in range(1, len(start) // 2 + 1) for kind in "wb"]
    params = network.as_params(dict(zip(names, start, strict=True)))
    recipe = train_step.recipe("relu", "mse", "sgd", 255.0)
    engine = variant.rpartition(" ")[2]
    blocks = loop.train(params, x, y, recipe, lr=LR, batch_size=BATCH, epochs=1_000_000, engine=engine)

    def epoch() -> None:
        next(block for block in blocks if block.ends_epoch)

    return epoch, lambda: [param.numpy() for param in params.values()]
