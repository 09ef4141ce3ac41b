"""fairseq-interactive: one answer to every line, in order, whatever the line."""

import re

import pytest

from . import commands

# known, empty, unknown words, known again, one letter, longer than anything in training
LINES = ["H u n d", "", "§ § §", "T a g", "H", " ".join("Hundedampfschifffahrt")]


@pytest.mark.parametrize("arch, buffer", [("transformer", 1), ("lstm", 4)])
def test_one_answer_per_line_in_order(trained, data, arch, buffer):
    output = commands.run(
        *("fairseq-interactive", data, *commands.USER_DIR, "--task", "translation", "--cpu"),
        *("--path", trained(arch) / "checkpoint_last.pt", "--beam", 5),
        *("--buffer-size", buffer, "--batch-size", buffer),
        stdin="".join(line + "\n" for line in LINES),
    )
    answered = re.findall(r"^([SH])-(\d+)\t", output, re.M)
    assert answered == [(kind, str(i)) for i in range(len(LINES)) for kind in "SH"]
    sources = re.findall(r"^S-\d+\t(.*)$", output, re.M)
    assert sources == [line.replace("§", "<unk>") for line in LINES]
    answers = commands.parse_generation(output)
    assert answers[0][0].tokens[0] == "H" and answers[3][0].tokens[0] == "T"
