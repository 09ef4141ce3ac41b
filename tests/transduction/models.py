"""Folders of tiny models with random weights: every answer can be found by enumeration."""

import itertools
import math
from argparse import Namespace
from pathlib import Path

import torch
from fairseq.models import ARCH_CONFIG_REGISTRY

from fairseq_entmax.data.spelling import Spelling
from fairseq_entmax.data.transduction import FORMATS, Item
from fairseq_entmax.functional import reference
from fairseq_entmax.transduction import folder
from tests.builders import TINY_LSTM, build, dictionary

LETTERS = ["a", "b", "c"]
_OPTIMIZER = {"optimizer_name": "FairseqAdam", "lr_scheduler_state": {"best": 0.0}}
SPREAD = 12.0
BEAM = 60  # more than there are answers
MAX_LEN = 3  # symbols of an answer
ITEMS = [Item("x", word) for word in ("a", "ba", "cab", "acca", "bcbca")]


class Words:
    """A task with other words than tests.builders' Task."""

    def __init__(self):
        self.source_dictionary = dictionary(0)
        for symbol in [*LETTERS, "<lang:x>"]:
            self.source_dictionary.add_symbol(symbol)
        self.target_dictionary = dictionary(0)
        # fairseq's beam is narrower than the dictionary
        for symbol in [*LETTERS, *map(str, range(BEAM))]:
            self.target_dictionary.add_symbol(symbol)


def make(place: Path, models: int = 1, alpha: float = 1.5, style=None, **settings) -> Path:
    """A folder such as run.sh leaves behind, in ``place / 'model'``."""
    data, task = place / "data", Words()
    data.mkdir(parents=True, exist_ok=True)
    task.source_dictionary.save(str(data / "dict.source.txt"))
    task.target_dictionary.save(str(data / "dict.target.txt"))
    Spelling(style or FORMATS["segmentation"]._replace(target="characters")).save(data)
    paths = []
    for seed in range(models):
        flags = {"output_alpha": alpha, "attention_alpha": alpha}
        model = spread(build("lstm_entmax", seed=seed + 3, task=task, **flags))
        args = Namespace(
            arch="lstm_entmax",
            task="transduction",
            criterion="entmax_loss",
            data="gone",
            **flags,
            **TINY_LSTM,
        )
        ARCH_CONFIG_REGISTRY["lstm_entmax"](args)
        state = {"args": args, "cfg": None, "model": model.state_dict(), "extra_state": {}}
        state["optimizer_history"] = [
            {"criterion_name": "EntmaxLoss", "num_updates": 1, **_OPTIMIZER}
        ]
        paths.append(place / f"{seed}.pt")
        torch.save({**state, "last_optimizer_state": {"large": torch.ones(9)}}, str(paths[-1]))
    known = {"max_len": (0, MAX_LEN), "beam": BEAM, **settings}
    folder.write(place / "model", data, paths, folder.Settings("toy", ("x",), **known))
    return place / "model"


def spread(model):
    """Scores that lie apart, and none for symbols that no answer has."""
    words = Words().target_dictionary
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(SPREAD)
        written = [words.eos(), *map(words.index, LETTERS)]
        never = torch.ones(len(words), dtype=torch.bool)
        never[written] = False
        model.decoder.fc_out.bias[never] = -1000.0
    return model


@torch.no_grad()
def enumerate_answers(transducer, item, alpha, temperature=1.0):
    """p of every string of the length that is allowed, one forced decoding at a time, by the
    reference in float64, the end included.
    """
    words = transducer.task.target_dictionary
    source = transducer.task.source_dictionary
    tokens = [*map(source.index, transducer.spelling.source_tokens(item)), source.eos()]
    found = {}
    for string in itertools.product(LETTERS, repeat=MAX_LEN):
        previous = torch.tensor([[words.eos(), *map(words.index, string)]])
        mean = 0
        for model in transducer.models:
            args = (torch.tensor([tokens]), torch.tensor([len(tokens)]), previous)
            scores = model(*args)[0][0].double() / temperature
            mean = mean + reference.entmax(scores, alpha) / len(transducer.models)
        for length in range(1, MAX_LEN + 1):
            ids = [*map(words.index, string[:length]), words.eos()]
            steps = mean[range(len(ids)), ids]
            p = math.prod(steps.tolist())
            if p > 0:
                found["".join(string[:length])] = p
    return found
