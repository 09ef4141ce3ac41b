"""String transduction for people without fairseq: a folder, its words, its answers."""

from .transducer import Answer, Transducer

__all__ = ["Answer", "Transducer"]
