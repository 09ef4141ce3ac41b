"""The benchmark of a GPU: refused without one; its cases, peers and table, run on a CPU."""

import sys
import types
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import benchmark  # noqa: E402
from benchmarks import device, peers  # noqa: E402

SPEED = device.Speed(1e9, 1e9)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda", "mapping"], f"--device cuda: torch {torch.__version__} sees no GPU"),
        (["attention"], "attention is a benchmark of a GPU: --device cuda"),
    ],
)
def test_without_a_gpu_it_is_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit):
        benchmark.main()
    printed = capsys.readouterr()
    assert not printed.out and message in printed.err.splitlines()[-1]


def test_what_a_gpu_has_no_benchmark_of(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "cuda", "decode"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "attention, not decode" in capsys.readouterr().err


@pytest.mark.parametrize("bench", list(device.BENCHES))
def test_every_case_computes_what_it_says(bench, monkeypatch):
    """Ours passes its gate, and all run beside the peers of torch and entmax 1.3."""
    monkeypatch.setattr(peers, "LIBRARIES", {"entmax": "entmax"})
    clock, cases = device.Clock("cpu"), list(device.BENCHES[bench]("cpu", True))
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        rows = list(device.run(case, clock, SPEED, 1))
        assert [row["peer"] for row in rows] == list(case.peers)
        for row in rows:
            assert row["ratio"] == pytest.approx(row["ours_ms"] / row["peer_ms"])
            assert row["floor_ms"] > 0 and row["ours_peak_mb"] is None
            assert device.line(row).count("|") == device.HEADER[0].count("|")


def case(error=0.0, theirs=lambda: None, **numbers):
    return device.Case("mapping", "8x8", lambda: None, {"peer": theirs}, lambda: error, **numbers)


def test_a_floor_is_the_slower_of_moving_and_computing():
    for moved, operations in ((2e6, 1e6), (1e6, 2e6)):
        (row,) = device.run(
            case(moved_bytes=moved, operations=operations), device.Clock("cpu"), SPEED, 3
        )
        assert row["floor_ms"] == pytest.approx(2.0)


def test_the_table():
    row = {
        **{"bench": "mapping", "case": "8x8", "peer": "softmax", "ratio": 0.5},
        **{"ours_ms": 1.0, "peer_ms": 2.0, "floor_ms": 0.25},
        **{"ours_peak_mb": 12.3, "peer_peak_mb": None},
    }
    line = "| mapping | 8x8 | softmax | 0.50 | 1.000 | 2.000 | 0.250 | 12 / - |"
    assert device.line(row) == line


def test_a_wrong_result_is_not_timed():
    for error in (1e-2, float("nan")):
        with pytest.raises(SystemExit, match="it is not timed"):
            list(device.run(case(error, moved_bytes=1), device.Clock("cpu"), SPEED, 3))


def test_a_peer_that_fails_is_said_and_left_out(capsys):
    def broken():
        raise RuntimeError("no kernel image")

    wrong = case(theirs=broken, moved_bytes=1)
    assert not list(device.run(wrong, device.Clock("cpu"), SPEED, 3))
    assert "peer failed: no kernel image" in capsys.readouterr().err


def test_peers_are_those_that_can_be_imported(monkeypatch):
    here = {"adasplash": types.SimpleNamespace(), "cut_cross_entropy": types.SimpleNamespace()}
    monkeypatch.setattr(peers, "library", here.get)
    assert set(peers.mappings()) == {"torch.softmax", "adasplash rows"}
    assert set(peers.losses(torch.zeros(1))) == {"F.cross_entropy"}
    assert set(peers.output_layers(torch.zeros(1))) == {"F.cross_entropy", "cut-cross-entropy"}
    assert set(peers.attentions(False)) == {"SDPA", "adasplash"}
    assert set(peers.missing().values()) == {"entmax", "liger-kernel"}


def test_the_machine_is_measured():
    speed = device.machine_speed("cpu", device.Clock("cpu"), 64)
    assert speed.bytes > 1e6 and speed.operations > 1e6
