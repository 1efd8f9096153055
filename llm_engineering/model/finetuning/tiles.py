"""Feed-forward blocks that go through a tile of tokens at a time, for rows of 100,000 tokens and more.

A block keeps several numbers of its inner width for each token. Each token goes through it by itself, so
that in tiles, worked out again in the backward pass, only one tile's are there. The passes are unsloth's
(``unsloth_zoo.tiled_mlp``, after Arctic's sequence tiling); they are put around whatever the blocks do
by now, with their adapters, and not around the class's own code, before there are any, as unsloth does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_engineering.planning.shape import is_feed_forward

_OWN = "_forward_in_one"


def tile_feed_forward(model: Any, tiled: bool) -> None:
    """Let the dense feed-forward blocks of a model go through in tiles, or in one again.

    A tile has as many tokens as the model is wide, unsloth's choice.

    Args:
        model: With its adapters; it must be loaded for training already.
        tiled: Whether in tiles.
    """
    blocks = [module for name, module in model.named_modules() if is_feed_forward(name, module)]
    for block in blocks:
        if _OWN in vars(block):
            before = vars(block).pop(_OWN)
            if before is None:
                del block.forward
            else:
                block.forward = before
        if tiled:
            vars(block)[_OWN] = vars(block).get("forward")
            block.forward = _in_tiles(block.forward, block)


def _in_tiles(forward: Callable[[Any], Any], block: Any) -> Callable[[Any], Any]:
    from torch import distributed
    from unsloth_zoo.tiled_mlp import TiledMLP

    if distributed.is_available() and distributed.is_initialized():
        from unsloth.models._tiled_mlp_ddp import patch_tiled_mlp_for_ddp

        patch_tiled_mlp_for_ddp()  # else each tile would tell the other ranks that it is done
    drops = any(getattr(module, "p", 0) > 0 for module in block.modules())

    def tiled(x: Any) -> Any:
        tokens, width = x.shape[0] * x.shape[1], x.shape[2]
        if tokens <= width:
            return forward(x)
        return TiledMLP.apply(forward, block, x, drops, tokens // width, width)

    return tiled
