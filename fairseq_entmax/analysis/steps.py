"""The distribution over the next token at every step of one string."""

from typing import Any, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn


class Step(NamedTuple):
    """p(next token | source, what was written before).

    Attributes:
        tokens: the most probable ones first, all with p > 0 or as many as were asked for, and the
            chosen and the gold one in any case.
        probs: their probabilities.
        chosen: the token that the string has here.
        gold: the token of the reference here; None where there is none, or it has ended.
        support: number of tokens with p > 0.
        rest: probability of the tokens left out.
    """

    tokens: List[str]
    probs: List[float]
    chosen: str
    gold: Optional[str]
    support: int
    rest: float


@torch.no_grad()
def next_token_probs(models: Sequence[nn.Module], sample: Any, target: Tensor) -> Tensor:
    """The mean of the models' probabilities before each token of ``target``, (tgt_len, V)."""
    previous = torch.cat([target[-1:], target[:-1]]).unsqueeze(0)
    previous = previous.to(sample["net_input"]["src_tokens"])
    total = 0
    for model in models:
        output = model(**sample["net_input"], prev_output_tokens=previous)
        total = total + model.get_normalized_probs(output, log_probs=False)[0].float().cpu()
    return total / len(models)


def steps(
    probs: Tensor, words: Any, target: Tensor, gold: Optional[Tensor] = None, most: int = 12
) -> List[Step]:
    """The tokens with p > 0 of each row.

    Args:
        probs: (tgt_len, V).
        words: the dictionary of the V tokens.
        target: the chosen tokens, (tgt_len,).
        gold: the tokens of the reference, shown as long as the string has not left it.
        most: that many tokens of a step at most, and the chosen and gold one.
    """
    found = []
    for i, (row, chosen) in enumerate(zip(probs, target.tolist())):
        on_track = gold is not None and torch.equal(gold[:i], target[:i]) and i < len(gold)
        right = int(gold[i]) if on_track and gold is not None else None
        support = int((row > 0).sum())
        shown = row.topk(min(most, support)).indices.tolist()
        shown += [t for t in dict.fromkeys([chosen, right]) if t is not None and t not in shown]
        values = row[shown].tolist()
        rest = max(0.0, float(row.double().sum() - row[shown].double().sum()))
        names = [words[token] for token in shown]
        gold_name = None if right is None else words[right]
        found.append(Step(names, values, words[chosen], gold_name, support, rest))
    return found
