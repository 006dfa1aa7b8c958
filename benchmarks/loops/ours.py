"""The loop of mlp_tape, `loop.train`: compiled or eager."""

from typing import Any

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("mlp_tape, compiled", "mlp_tape, eager")


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    from mlp_tape.system import tensorflow_setup

    tensorflow_setup.import_tensorflow()
    from mlp_tape.runs.trainer import step_config
    from mlp_tape.tensors import network
    from mlp_tape.tensors.schedules import LearningRate
    from mlp_tape.training import loop
    from mlp_tape.training.batches import Batches
    from mlp_tape.training.loop import LoopConfig
    from mlp_tape.training.state import initial

    names = [f"{kind}{layer}" for layer in range(1, len(start) // 2 + 1) for kind in "wb"]
    params = network.as_params(dict(zip(names, start, strict=True)))
    config = step_config("relu", "mse", "sgd", 255.0)
    limits = LoopConfig(epochs=1_000_000, engine=variant.rpartition(" ")[2])
    state = initial(params, config.optimizer)
    blocks = loop.train(state, Batches(x, y, BATCH), config, LearningRate(LR), limits)

    def epoch() -> None:
        next(block for block in blocks if block.ends_epoch)

    return epoch, lambda: [param.numpy() for param in params.values()]
