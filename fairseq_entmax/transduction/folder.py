"""One folder that holds all that answers need: checkpoints, dictionaries, spelling, settings.

transducer.json     task, languages, beam, length limits, temperatures for coverage
spelling.json       how text becomes symbols; with subwords also *.spm and *.letters.json
dict.source.txt, dict.target.txt
model-1.pt, ...     an ensemble, without the state of the optimizer
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import torch

from fairseq_entmax.data.files import read_checkpoint, read_json, whole, write_json
from fairseq_entmax.data.inflection import DataError
from fairseq_entmax.data.spelling import files_in

SETTINGS = "transducer.json"


class Settings(NamedTuple):
    """How a folder's models answer.

    Attributes:
        task: the name of what they do.
        languages: those that they know.
        beam: width of the search.
        max_len: a and b; answers have at most a * (symbols of the source) + b symbols.
        coverage: percent -> temperature at which the possible strings hold the right one in so
            many cases; see :mod:`.conformal`.
    """

    task: str
    languages: Tuple[str, ...]
    beam: int = 5
    max_len: Tuple[float, int] = (2, 20)
    coverage: Dict[str, float] = {}


def write(folder: Path, data: Path, checkpoints: Sequence[Path], settings: Settings) -> None:
    """Gathers a folder from binarised data and checkpoints; done again, it takes the new ones.

    Stopped at any moment it leaves what was there, or, between the first new name and the last, a
    folder without settings, which is refused: never a mix of old and new.

    Args:
        data: where fairseq-preprocess has written the dictionaries, with ``spelling.json``.
        checkpoints: of the models that answer together.

    Raises:
        OSError: something is missing or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:  # what comes first gets its name last
        write_json(files.enter_context(whole(folder / SETTINGS)), settings._asdict())
        for path in [*data.glob("dict.*.txt"), *files_in(data)]:
            part = files.enter_context(whole(folder / path.name))
            shutil.copyfile(str(path), str(part))
        for number, path in enumerate(checkpoints, 1):
            part = files.enter_context(whole(folder / f"model-{number}.pt"))
            state = read_checkpoint(path)
            state["last_optimizer_state"] = None
            state["extra_state"] = {"train_iterator": {"epoch": 1}}  # all that loading asks for
            torch.save(state, str(part))
        for path in [folder / SETTINGS, *_models_in(folder)[len(checkpoints) :]]:
            if path.exists():
                path.unlink()


def write_settings(folder: Path, settings: Settings) -> None:
    write_json(folder / SETTINGS, settings._asdict())


def read_settings(folder: Path) -> Settings:
    """The settings of a folder.

    Raises:
        DataError: it is not a folder of :func:`write`.
    """
    path = folder / SETTINGS
    try:
        return _settings(read_json(path))
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror} (name the folder that examples/transduction/run.sh calls "
            "model)"
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}") from None


def _settings(content: Any) -> Settings:
    if not isinstance(content, dict):
        raise ValueError(f"expected names and values, got {content!r}")
    if set(content) - set(Settings._fields):
        known = ", ".join(Settings._fields)
        raise ValueError(f"expected names and values out of {known}, got {list(content)!r}")
    settings = Settings(**content)
    checks = {
        "task": isinstance(settings.task, str),
        "languages": _all(str, settings.languages),
        "beam": isinstance(settings.beam, int) and settings.beam >= 1,
        "max_len": _all((int, float), settings.max_len) and len(settings.max_len) == 2,
        "coverage": isinstance(settings.coverage, dict)
        and _all((int, float), list(settings.coverage.values())),
    }
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        got = getattr(settings, wrong[0])
        raise ValueError(f"{wrong[0]} must be as fairseq_entmax has written it, got {got!r}")
    return settings._replace(languages=tuple(settings.languages), max_len=tuple(settings.max_len))


def _all(kind: Any, values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)


def checkpoints_in(folder: Path) -> List[Path]:
    """The checkpoints of a folder, by number.

    Raises:
        DataError: there are none.
    """
    found = _models_in(folder)
    if not found:
        raise DataError(f"{folder}: no model-1.pt")
    return found


def _models_in(folder: Path) -> List[Path]:
    numbered = {p.stem.split("-")[1]: p for p in folder.glob("model-*.pt")}
    return [numbered[n] for n in sorted(filter(str.isdecimal, numbered), key=int)]
