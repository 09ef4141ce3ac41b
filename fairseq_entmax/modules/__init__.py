"""Building blocks: attention and output layers with alpha-entmax."""

from fairseq_entmax.decoding.everywhere import output_alpha_of

from .adopt import adopt
from .attentions import sparse_twin_of
from .learned_alpha import LearnedAlpha, learned_alphas
from .luong_attention import EntmaxLuongAttention
from .multihead_attention import EntmaxMultiheadAttention
from .output import EntmaxOutputMixin, sparsify_output
from .schedule import AlphaSchedule, schedule_alphas
from .sparsify import sparsify

__all__ = [
    "AlphaSchedule",
    "EntmaxLuongAttention",
    "EntmaxMultiheadAttention",
    "EntmaxOutputMixin",
    "LearnedAlpha",
    "adopt",
    "learned_alphas",
    "output_alpha_of",
    "schedule_alphas",
    "sparse_twin_of",
    "sparsify",
    "sparsify_output",
]
