"""The data of the training curve: points in their order, seconds that were really used."""

import json
import sys
from pathlib import Path

import pytest
from fairseq import options

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def curve(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from benchmarks import training_curve

    return training_curve


def valid_line(updates, accuracy):
    logged = {"valid_num_updates": updates, "valid_token_accuracy": accuracy, "valid_support": 2}
    shown = json.dumps({name: str(value) for name, value in logged.items()})
    return f"2020-01-01 | INFO | valid | {shown}"


def program(*lines, code=0):
    """Prints lines, and works 0.2 seconds before each."""
    work = "import time, sys\nfor line in sys.argv[1:]:\n    end = time.process_time() + 0.2\n"
    work += "    while time.process_time() < end: pass\n    print(line, flush=True)\n"
    work += f"time.sleep(0.5)\nsys.exit({code})"
    return [sys.executable, "-c", work, *lines]


def test_points_of_a_training(curve):
    twin = curve.train(program("hello", valid_line(10, 0.25), valid_line(20, 0.5)))
    assert [point["num_updates"] for point in twin.points] == [10, 20]
    assert [point["token_accuracy"] for point in twin.points] == [0.25, 0.5]
    first, second = (point["cpu_s"] for point in twin.points)
    assert first >= 0.35 and 0.15 <= second - first < 5
    assert all(point["wall_s"] >= point["cpu_s"] - 0.05 for point in twin.points)
    assert 1 < twin.peak_mb < 1000
    assert curve.seconds_to(twin.points, 0.4) == second
    assert curve.seconds_to(twin.points, 0.2) == first
    assert curve.seconds_to(twin.points, 0.6) is None


@pytest.mark.parametrize("command", [program("no validation"), program(valid_line(1, 1), code=3)])
def test_a_failed_training_is_no_curve(curve, command):
    with pytest.raises(SystemExit, match="fairseq-train failed"):
        curve.train(command)


def test_its_command_parses(curve):
    parser = options.get_training_parser("translation")
    command = curve.train_command(Path("data"), 2.0, 1000, 20)
    args = options.parse_args_and_arch(parser, command[1:])
    assert (args.output_alpha, args.attention_alpha) == (2.0, 2.0)
    assert (args.max_update, args.validate_interval_updates) == (1000, 50)


def test_rows_compare_with_softmax(curve, monkeypatch):
    def train(command):
        alpha = float(command[command.index("--output-alpha") + 1])
        points = [
            {"num_updates": n, "token_accuracy": n * alpha / 10, "cpu_s": 4.0 * n, "wall_s": n}
            for n in (1, 2, 3)
        ]
        return curve.Twin(points, 100 * alpha)

    monkeypatch.setattr(curve, "train", train)
    monkeypatch.setenv(curve.DATA, "somewhere")
    rows = list(curve.training_curve(True, 3))
    assert [row["case"].split(",")[0] for row in rows] == ["1.5-entmax", "sparsemax"]
    for row in rows:
        assert row["ratio"] == row["wall_ratio"] == 1
        assert row["to_peer_accuracy"] == pytest.approx(2 / 3)  # one validation earlier
    assert json.loads(json.dumps(rows)) == rows
