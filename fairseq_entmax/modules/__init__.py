"""Building blocks: attention and output layers with alpha-entmax."""

from .adopt import adopt
from .learned_alpha import LearnedAlpha, check_learned_start, learned_alphas
from .luong_attention import EntmaxLuongAttention
from .multihead_attention import EntmaxMultiheadAttention, sparsify_attention
from .output import EntmaxOutputMixin, check_output_args, output_alpha_of, sparsify_output

__all__ = [
    "EntmaxLuongAttention",
    "EntmaxMultiheadAttention",
    "EntmaxOutputMixin",
    "LearnedAlpha",
    "adopt",
    "check_learned_start",
    "check_output_args",
    "learned_alphas",
    "output_alpha_of",
    "sparsify_attention",
    "sparsify_output",
]
