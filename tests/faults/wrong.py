"""Command lines that ask for what cannot be: arguments, and what the last line says of them."""

TINY = ["--arch", "transformer_entmax_tiny"]
LSTM = ["--arch", "lstm_entmax"]
ALPHA = "must be >= 1 and finite (1 is softmax, 2 is sparsemax), got "

# behind a training that would run
TRAIN = {
    "alpha below 1": ([*TINY, "--output-alpha", "0.5"], f"argument --output-alpha: {ALPHA}0.5"),
    "alpha inf": ([*TINY, "--output-alpha", "inf"], f"argument --output-alpha: {ALPHA}inf"),
    "alpha nan": ([*TINY, "--attention-alpha", "nan"], f"argument --attention-alpha: {ALPHA}nan"),
    "alpha comma": ([*TINY, "--output-alpha", "1,5"], f"argument --output-alpha: {ALPHA}1,5"),
    "alpha cross": (
        [*TINY, "--cross-attention-alpha", "-1"],
        f"argument --cross-attention-alpha: {ALPHA}-1",
    ),
    "alpha word": (
        [*LSTM, "--attention-alpha", "sparsemax"],
        f"argument --attention-alpha: {ALPHA}sparsemax",
    ),
    "smoothing 1": ([*TINY, "--label-smoothing", "1"], "--label-smoothing must lie in [0, 1)"),
    "smoothing < 0": ([*TINY, "--label-smoothing", "-0.1"], "must lie in [0, 1), got -0.1"),
    "smoothing prior": ([*TINY, "--label-smoothing-prior", "zipf"], "invalid choice: 'zipf'"),
    "cross-entropy": (
        [*TINY, "--criterion", "cross_entropy"],
        "use `--criterion entmax_loss` (--label-smoothing keeps its meaning)",
    ),
    "smoothed cross-entropy": (
        [*LSTM, "--criterion", "label_smoothed_cross_entropy"],
        "has no gradient outside the support of a sparse output (--output-alpha 1.5)",
    ),
    "stock arch": (
        ["--arch", "transformer_tiny"],
        "use an arch of fairseq_entmax, the stock arch with _entmax at its end",
    ),
    "adaptive": (
        [*TINY, "--adaptive-softmax-cutoff", "10,20"],
        "is a softmax by construction and cannot be sparse (--output-alpha 1.5)",
    ),
    "adaptive criterion": ([*TINY, "--criterion", "adaptive_loss"], "cannot be sparse"),
    "temperature 0": ([*TINY, "--output-temperature", "0"], "must be a number > 0, got 0.0"),
    "temperature of softmax": (
        [*TINY, "--output-alpha", "1", "--output-temperature", "2"],
        "--output-temperature 2 is for a sparse output, and --output-alpha is 1: drop it",
    ),
    "attention temperature 0": ([*TINY, "--attention-temperature", "0"], "temperature"),
    "temperature of an LSTM": (
        [*LSTM, "--attention-temperature", "2"],
        "unrecognized arguments: --attention-temperature 2",
    ),
    "score": ([*LSTM, "--attention-score", "cosine"], "invalid choice: 'cosine'"),
    "score of a transformer": (
        [*TINY, "--attention-score", "mlp"],
        "unrecognized arguments: --attention-score mlp",
    ),
    "share": ([*TINY, "--softmax-share", "2"], "--softmax-share"),
    "share words": ([*TINY, "--softmax-share", "a:b"], "--softmax-share"),
    "schedule": ([*TINY, "--output-alpha-schedule", "x"], "--output-alpha-schedule"),
    "schedule backwards": (
        [*TINY, "--attention-alpha-schedule", "1:20:10"],
        "--attention-alpha-schedule",
    ),
    "prefix": ([*TINY, "--ignore-prefix-size=-1"], "--ignore-prefix-size must be >= 0, got -1"),
    "mistyped arch": (["--arch", "transformer_entmx"], "did you mean transformer_entmax"),
    "fused": ([*TINY, "--fused-output", "on"], "invalid choice: 'on'"),
    "unknown criterion": ([*TINY, "--criterion", "entmax"], "invalid choice: 'entmax'"),
}

EXACT = ["--task", "sparse_translation", "--search", "exact"]
SPARSE = ["--task", "sparse_translation"]
# of hostile.REFUSED, with the real command
HOSTILE = ["code: layers", "huge width", "weight: bits", "weight: other words", "cfg: list"]
# behind a fairseq-generate that would run; {tmp} is a folder with broken.pt, text.pt
GENERATE = {
    "beam 0": (["--beam", "0"], "--beam must be at least 1, got 0"),
    "nbest 0": (["--nbest", "0"], "--nbest must be at least 1, got 0"),
    "beam 0 of exact search": ([*EXACT, "--beam", "0"], "--beam must be at least 1, got 0"),
    "shard beyond": (["--num-shards", "4", "--shard-id", "4"], "numbered from 0 to 3"),
    "shard below": (["--num-shards", "4", "--shard-id=-1"], "numbered from 0 to 3"),
    "shards twice": (
        ["--num-shards", "2", "--distributed-world-size", "2"],
        "--num-shards 2 and --distributed-world-size 2: give one of them",
    ),
    "tree is a folder": (
        [*SPARSE, "--search-tree", "{tmp}"],
        "cannot write {tmp}: it is a folder, name a file in it",
    ),
    "report without a folder": (
        [*SPARSE, "--search-report", "{tmp}/no/report"],
        "cannot write {tmp}/no/report: there is no folder {tmp}/no",
    ),
    "mass": ([*EXACT, "--search-mass", "2"], "--search-mass must be in (0, 1]"),
    "mass of a beam": ([*SPARSE, "--search-mass", "0.5"], "needs --search exact"),
    "expansions": ([*EXACT, "--max-expansions", "0"], "must be at least 1, got 0 and 1024"),
    "reference": ([*EXACT, "--score-reference"], "--score-reference searches nothing"),
    "sampling": ([*EXACT, "--sampling", "--nbest", "5"], "plain beam search: Sampling"),
    "torn checkpoint": (["--path", "{tmp}/broken.pt"], "it is damaged or incomplete"),
    "text as a checkpoint": (["--path", "{tmp}/text.pt"], "refused to load the checkpoint"),
    "pickle as a checkpoint": (["--path", "{tmp}/protocol 4.pt"], "Nothing was executed"),
    "compressed checkpoint": (["--path", "{tmp}/zip bomb.pt"], "data.pkl makes 1"),
    "no such checkpoint": (["--path", "{tmp}/no.pt"], "Model file not found: {tmp}/no.pt"),
    **{
        f"hostile {name}": (
            ["--path", f"{{tmp}}/{name}.pt"],
            f"cannot load the model of {{tmp}}/{name}.pt",
        )
        for name in HOSTILE
    },
    "evaluated setting": (
        ["--model-overrides", "{{'model': {{'output_alpha': 'inf'}}}}"],
        f"output_alpha {ALPHA}inf",
    ),
}

SRC = ["--data", "{tmp}", "--src", "a", "--tgt", "b", "--test", "t", "--out", "{tmp}/out"]
DATA = ["--data", "{tmp}", "--out", "{tmp}/out"]
G2P = [*DATA, "--task", "g2p"]
# of the run.sh of each example, the last line as a whole
RUN = {
    "translation": [
        ([], "--data is missing (run.sh --help)"),
        (
            ["--colour"],
            "unknown option --colour (fairseq's own flags go after --; run.sh --help "
            "lists the rest)",
        ),
        (["--data"], "--data needs a value"),
        ([*SRC, "--src", "b"], "--src and --tgt are both b"),
        ([*SRC, "--data", "{tmp}/no"], "--data {tmp}/no: no such folder"),
        ([*SRC, "--beam", "0"], "--beam must be at least 1, got 0"),
        ([*SRC, "--average", "0"], "--average must be at least 1, got 0"),
        ([*SRC, "--vocab", "many"], "--vocab must be a whole number, got many"),
        ([*SRC, "--seed", "-1"], "--seed must be a whole number, got -1"),
        ([*SRC, "--label-smoothing", "1"], "--label-smoothing must be a number in [0, 1), got 1"),
        (
            [*SRC, "--output-alpha", "inf"],
            "--output-alpha must be a number >= 1 (1 is softmax), got inf",
        ),
    ],
    "inflection": [
        ([], "--data is missing: a clone of sigmorphon/conll2018"),
        (["--data", "{tmp}/no"], "--data {tmp}/no: no such folder"),
        (["--data", "{tmp}"], "--out is missing"),
        (
            [*DATA, "--beam", "x"],
            "--ensemble, --seed, --beam and --max-update are whole numbers, got x",
        ),
        ([*DATA, "--beam", "0"], "--ensemble, --beam and --max-update are at least 1"),
        (
            [*DATA, "--attention-alpha", "0.9"],
            "--output-alpha and --attention-alpha are numbers >= 1 (1 is softmax), got 0.9",
        ),
        (
            [*DATA, "--columns", "form"],
            "--columns must be lemma,form,features or lemma,features,form, got form",
        ),
        ([*DATA, "--eval-split", "train"], "--eval-split must be dev or test, got train"),
    ],
    "transduction": [
        ([], "--data is missing"),
        ([*G2P, "--beam", "0"], "--beam is at least 1"),
        ([*G2P, "--seed", "1.5"], "--seed is a whole number, got 1.5"),
        ([*G2P, "--output-alpha", "0"], "--output-alpha is a number >= 1 (1 is softmax), got 0"),
        ([*G2P, "--abstain", "2"], "--abstain is a probability, got 2"),
        (
            [*G2P, "--arch", "gru"],
            "--arch must be one of lstm, two_headed, transformer, got gru",
        ),
    ],
}

# of python -m fairseq_entmax, the last line
PROGRAMS = [
    (["merge"], "the following arguments are required: SHARD"),
    (["merge", "{tmp}/no"], "merge: [Errno 2] No such file or directory: '{tmp}/no'"),
    (["merge", "{tmp}/text.pt"], "merge: text.pt: no line `Shard K of N` at its end"),
    (["merge", "{tmp}/text.pt", "--lines", "x"], "argument --lines: invalid int value: 'x'"),
    (["predict"], "the following arguments are required: model"),
    (["predict", "{tmp}/no", "--beam", "0"], "predict: --beam must be at least 1, got 0"),
    (["predict", "{tmp}/no", "--abstain", "2"], "predict: --abstain is a probability, got 2.0"),
    (["predict", "{tmp}/no"], "predict: {tmp}/no"),
    (["predict", "{tmp}/no", "--coverage", "90"], "predict: {tmp}/no"),
]
