"""Reading SentencePiece's ``tokenizer.model`` where its own reader does not fit protobuf."""

from __future__ import annotations

import sys


def use_readable_proto() -> None:
    """Let transformers read a ``tokenizer.model`` with its own description of the format.

    sentencepiece 0.2.3 brings one that is generated for protobuf 7, and refuses any older runtime
    at import; sagemaker-core holds protobuf below 7. transformers has the same
    description, generated for older ones, but takes sentencepiece's wherever that is installed.
    """
    try:
        import sentencepiece
    except ImportError:
        return  # transformers uses its own
    try:
        import sentencepiece.sentencepiece_model_pb2
    except Exception:  # protobuf's VersionError is of no stable place
        from transformers.utils import sentencepiece_model_pb2_new

        sys.modules["sentencepiece.sentencepiece_model_pb2"] = sentencepiece_model_pb2_new
        sentencepiece.sentencepiece_model_pb2 = sentencepiece_model_pb2_new
