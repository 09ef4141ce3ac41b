"""What a criterion asks of the model that it trains."""

from typing import Any, List

from fairseq.models import MODEL_REGISTRY

from fairseq_entmax.modules import output_alpha_of

_TWIN = "_entmax"


def wrappers(model: Any) -> List[Any]:
    """The model and the wrappers of data parallel training around it, outermost first."""
    found = [model]
    while hasattr(found[-1], "module"):
        found.append(found[-1].module)
    return found


def unwrapped(model: Any) -> Any:
    """The model itself."""
    return wrappers(model)[-1]


def needed_output_alpha(model: Any) -> float:
    """The alpha of the model's output layer.

    Raises:
        ValueError: it knows only softmax; the message names the arch that would do.
    """
    inner = unwrapped(model)
    alpha = output_alpha_of(inner)
    if alpha is None:
        raise ValueError(
            f"--criterion entmax_loss needs a model that saves its output alpha, got "
            f"{type(inner).__name__}, which knows only softmax: {_way_out(inner)}"
        )
    return alpha


def _way_out(model: Any) -> str:
    if getattr(getattr(model, "decoder", None), "adaptive_softmax", None) is not None:
        return "its adaptive softmax is trained by `--criterion adaptive_loss`"
    names = [name for name, cls in MODEL_REGISTRY.items() if cls is type(model)]
    twin = next((n + _TWIN for n in names if n + _TWIN in MODEL_REGISTRY), None)
    if twin is None:
        return "make it sparse with fairseq_entmax.modules.sparsify (docs/own-models.md)"
    why_not = getattr(MODEL_REGISTRY[twin], "no_output", "")
    if why_not:
        return f"{why_not}. Use the criterion of its own recipe."
    return (
        f"use an arch of fairseq_entmax, the stock arch with {_TWIN} at its end, such as "
        f"`--arch {twin}`, or `--criterion cross_entropy`."
    )
