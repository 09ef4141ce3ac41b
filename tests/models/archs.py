"""Any arch of fairseq, built on the meta device: shapes and names, but no numbers."""

from argparse import Namespace
from functools import lru_cache
from typing import Any, Dict

import torch
from fairseq import options
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY, build_model
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask

from tests.builders import dictionary

# the task whose flags a model reads, by how the model's name begins; else translation
TASKS = {
    "s2t": "speech_to_text",
    "convtransformer": "speech_to_text",
    "s2ut": "speech_to_speech",
    "s2spect": "speech_to_speech",
    "tacotron": "text_to_speech",
    "tts": "text_to_speech",
    "multilingual": "multilingual_translation",
    "roberta": "masked_lm",
    "xmod": "masked_lm",
    "masked_lm": "masked_lm",
    "lightconv_lm": "language_modeling",
    "fconv_lm": "language_modeling",
    "lstm_lm": "language_modeling",
    "transformer_lm": "language_modeling",
    "transformer_ulm": "language_modeling",
}
# what a command line cannot leave out, or a task would have set
SETTINGS = {
    "input_feat_per_channel": 80,
    "input_channels": 1,
    "output_frame_dim": 80,
    "tokens_per_sample": 64,
    "target_code_size": 20,
    "n_frames_per_step": 1,
    "target_speaker_embed": False,
    "discrete_duration": False,
    "discrete_f0": False,
    "pitch_min": 0.0,
    "pitch_max": 1.0,
    "energy_min": 0.0,
    "energy_max": 1.0,
}


class AnyTask(MultilingualTranslationTask):
    """What the models of every kind ask of their task."""

    multitask_tasks: Dict[str, Any] = {}

    def __init__(self, n_words, args):
        words = dictionary(n_words)
        self.args = self.cfg = args
        self.dictionary = self.src_dict = self.tgt_dict = words
        self.dicts = {"de": words, "en": words}
        self.langs, self.lang_pairs, self.model_lang_pairs = ["de", "en"], ["de-en"], ["de-en"]
        self.speaker_to_id = None
        self.data_cfg = Namespace(hub={})
        self.training = True

    source_dictionary = target_dictionary = output_dictionary = property(
        lambda self: self.dictionary
    )

    def max_positions(self):
        return 64

    def get_speaker_embeddings(self, args):
        return None


def model_of(arch):
    return ARCH_MODEL_NAME_REGISTRY[arch].replace("_entmax", "")


@lru_cache(maxsize=None)
def command_line(arch, *flags):
    """The namespace that fairseq-train would build the model from."""
    model = model_of(arch)
    starts = sorted((s for s in TASKS if model.startswith(s)), key=len)
    task = TASKS[starts[-1]] if starts else "translation"
    parser = options.get_training_parser(task)
    required = ["--lang-pairs", "de-en"] if task.startswith("multi") else []
    return options.parse_args_and_arch(parser, ["data", "--arch", arch, *required, *flags])


def build_arch(arch, *flags, **settings):
    """A model without numbers, of the sizes that the arch has."""
    args = Namespace(**vars(command_line(arch, *flags)))
    for name, value in {**SETTINGS, **settings}.items():
        if name in settings or getattr(args, name, None) is None:
            setattr(args, name, value)
    # an adaptive softmax has its clusters cut out of a large vocabulary
    if getattr(ARCH_MODEL_REGISTRY[arch], "no_output", None) == "":
        args.criterion = "entmax_loss"
    if model_of(arch).startswith("s2ut"):
        args.target_is_code = True
    n_words = 300_000 if getattr(args, "adaptive_softmax_cutoff", None) else 20
    cpu = torch.Tensor.cpu
    try:  # some draw their numbers on the CPU
        torch.Tensor.cpu = lambda self: self if self.is_meta else cpu(self)
        with torch.device("meta"):
            return build_model(args, AnyTask(n_words, args))
    finally:
        torch.Tensor.cpu = cpu
