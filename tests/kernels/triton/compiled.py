"""Compiles the kernels for GPUs that need not be there; a script: ``python -m ...compiled FOLDER``.

``FOLDER/found.pt`` is {name: numbers}: registers and stack of the machine code, bytes of shared
memory, and how many accesses of global memory have which width in bits. With ``--table`` it prints
them for docs/gpu.md.
"""

import collections
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

PACKAGE = "fairseq_entmax.kernels.triton"
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
WIDE, WHOLE = "*fp32", "*i32"
NUMBERS = ("n_units", "z_units", "out_units", "p_units", "grad_units", "n_rows", "n_cols")
STRIDES = ("z_stride", "out_stride", "p_stride", "grad_stride", "scratch", "capacity")
POINTERS = {
    **{"target_ptr": "*i64", "support_ptr": "*i64", "correct_ptr": "*i1"},
    **{"active_ptr": WHOLE, "kept_ptr": WHOLE, "column_ptr": WHOLE},
}
SCORES = ("z_ptr", "out_ptr", "p_ptr")
STREAMED = {"BLOCK": 4096, "SUB": 128, "PIECES": 2048, "AT_ONCE": 16, "UNIT": 8}


class Build(NamedTuple):
    """One compilation."""

    kernel: str
    constants: Dict[str, Any]
    warps: int


def _builds() -> Dict[str, Build]:
    log = {"LOG": False}
    resident = {**log, "BLOCK": 8192, "LANES": 256, "VEC": 8, "UNIT": 8}
    short = {"ROWS": 32, "BLOCK": 64}
    backward = {"PIECES": 32, "SUB": 128, "UNIT": 8, "FITS": False}
    return {
        "forward, up to 512 columns": Build("short.short_forward", {**log, **short}, 4),
        "backward, up to 512 columns": Build("short.short_backward", short, 4),
        "forward, up to 8,192": Build("rows.resident_forward", resident, 8),
        "backward, up to 8,192": Build(
            "rows.backward", {**backward, "PIECES": 64, "FITS": True}, 8
        ),
        "forward, any number": Build("rows.streamed_forward", {**log, **STREAMED}, 8),
        "backward, any number": Build("rows.backward", backward, 8),
        "loss": Build("loss.loss_forward", STREAMED, 8),
        "gradient of the loss": Build(
            "loss.loss_backward", {"BLOCK": 4096, "UNIT": 8, "KEPT": 256}, 8
        ),
    }


BUILDS = _builds()
# (capability, type of the scores, KIND)
TARGETS: Tuple[Tuple[int, str, int], ...] = ((90, "bf16", 15), (80, "fp32", 0))


def numbers_of(build: Build, capability: int, dtype: str, kind: int) -> Dict[str, int]:
    """What the machine code is made of."""
    module, name = build.kernel.split(".")
    kernel = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    constants = {"KIND": kind, "BY_ROW": False, **build.constants}
    if "VEC" in constants and dtype == "fp32":
        constants["VEC"] = 4
    given = [a for a in kernel.arg_names if a not in constants]
    types = {a: _type_of(a, dtype, name) for a in given}
    aligned = [a for a in given if types[a].startswith("*") or a in STRIDES]
    aligned += ["n_cols"] if "n_cols" in given else []
    place = {a: i for i, a in enumerate(kernel.arg_names)}
    source = ASTSource(
        fn=kernel,
        signature={a: types.get(a, "constexpr") for a in kernel.arg_names},
        constexprs={(place[a],): value for a, value in constants.items()},
        attrs={(place[a],): [["tt.divisibility", 16]] for a in aligned},
    )
    target, options = GPUTarget("cuda", capability, 32), {"num_warps": build.warps}
    compiled = triton.compile(source, target=target, options=options)
    return {"shared": compiled.metadata.shared, **_machine_code(compiled.asm["cubin"])}


def _type_of(argument: str, dtype: str, kernel: str) -> str:
    if argument in SCORES or (argument == "grad_ptr" and not kernel.startswith("loss")):
        return "*" + dtype
    if argument.endswith("_ptr"):
        return POINTERS.get(argument, WIDE)
    return "i32" if argument in (*NUMBERS, *STRIDES) else "fp32"


def _machine_code(cubin: bytes) -> Dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run(
                [str(TOOLS / "cuobjdump"), option, file.name],
                stdout=subprocess.PIPE,
                encoding="utf-8",
                check=True,
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    found: Dict[str, int] = collections.Counter()
    for name in ("REG", "STACK"):
        found[name] = int(re.search(rf"{name}:(\d+)", usage).group(1))
    for access, flags in re.findall(r"\b(LDG|STG)\.([A-Z0-9.]+)", code):
        width = re.search(r"\b(128|64|U16|U8)\b", flags)
        found[f"{access} {width.group(1) if width else 32}"] += 1
    return dict(found)


def main() -> None:
    """Compiles all."""
    found = {
        f"{name}, {dtype}, KIND {kind}, sm_{capability}": numbers_of(build, capability, dtype, kind)
        for name, build in BUILDS.items()
        for capability, dtype, kind in TARGETS
    }
    if sys.argv[1] == "--table":
        print("| kernel | registers | stack, bytes | shared, bytes |\n| --- | ---: | ---: | ---: |")
        for name, n in found.items():
            print(f"| {name} | {n['REG']} | {n['STACK']} | {n['shared']:,} |")
        return
    torch.save(found, os.path.join(sys.argv[1], "found.pt"))


if __name__ == "__main__":
    main()
