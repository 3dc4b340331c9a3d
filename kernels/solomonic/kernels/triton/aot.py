"""Compile every Triton kernel ahead of time, without a GPU, and compare what comes out with what is committed.

``python -m solomonic.kernels.triton.aot`` prints, for every operation, build and architecture, the registers,
spills, stack, shared memory, matrix instructions, loads and stores of the compiled kernels, then the differences
from ``<operation>/expected.json``, and fails if there are any; ``--write`` commits the new numbers instead.

An operation takes part by a module ``solomonic.kernels.<operation>.builds`` with ``BUILDS``: a mapping of a
build's name to a function without arguments that makes the public or internal call on tensors of the device
``"meta"``. The kernels that the call would have started are what is compiled, with the types, alignment and
configuration of that very call.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from solomonic.kernels.triton.launch import Launch, architecture, intercept

__all__ = ["ARCHITECTURES", "OPERATIONS", "compiled", "differences", "expected", "lowered", "table"]

OPERATIONS = ("ssd", "short_conv", "memory_attention", "selective_scan", "select_innovations")
ARCHITECTURES = ("sm_80", "sm_90", "gfx942")

Metrics = dict[str, int]
# operation -> build -> kernel -> architecture -> metrics
Table = dict[str, dict[str, dict[str, dict[str, Metrics]]]]

_TYPES = {
    "torch.float64": "fp64",
    "torch.float32": "fp32",
    "torch.float16": "fp16",
    "torch.bfloat16": "bf16",
    "torch.int64": "i64",
    "torch.int32": "i32",
    "torch.bool": "i1",
    "torch.uint8": "u8",
}


def operations() -> list[str]:
    """The operations of `OPERATIONS` that have builds in this version."""
    package = resources.files("solomonic.kernels")
    return [name for name in OPERATIONS if package.joinpath(name, "builds.py").is_file()]


def recorded(operation: str, arch: str, only: Iterable[str] = ()) -> dict[str, list[Launch]]:
    """The kernels that each build of `operation` starts with the configurations of `arch`."""
    builds = importlib.import_module(f"solomonic.kernels.{operation}.builds").BUILDS
    found = {}
    for name, call in builds.items():
        if only and name not in only:
            continue
        starts: list[Launch] = []
        with architecture(arch), intercept(starts.append):
            call()
        found[name] = starts
    return found


def _specialised(start: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Types, constants and attributes as the just-in-time compiler would derive them from the values."""
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(start.kernel.params):
        value = start.arguments[parameter.name]
        kind = "constexpr"
        if isinstance(value, Tensor) and not parameter.is_constexpr:
            kind = "*" + _TYPES[str(value.dtype)]
            attributes[position,] = [["tt.divisibility", 16]]
        elif parameter.is_constexpr or value is None or (value == 1 and isinstance(value, int)):
            constants[parameter.name] = value
        elif isinstance(value, bool):
            kind = "i1"
        elif isinstance(value, int):
            kind = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[position,] = [["tt.divisibility", 16]]
        else:
            kind = "fp32"
        signature[parameter.name] = kind
    return signature, constants, attributes


def _source(start: Launch, arch: str) -> tuple[Any, Any]:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    nvidia = arch.startswith("sm_")
    target = GPUTarget("cuda", int(arch[3:]), 32) if nvidia else GPUTarget("hip", arch, 64)
    signature, constants, attributes = _specialised(start)
    return ASTSource(start.kernel, signature, constexprs=constants, attrs=attributes), target


def _compile(start: Launch, arch: str) -> Any:
    import triton

    source, target = _source(start, arch)
    return triton.compile(source, target=target, options=start.options)


def lowered(start: Launch, arch: str = "sm_90") -> str:
    """One start of a kernel in Triton's own representation: what its front end accepts, without compiling further."""
    from triton._C.libtriton import ir  # type: ignore[import-not-found]
    from triton.compiler.compiler import make_backend

    source, target = _source(start, arch)
    backend: Any = make_backend(target)
    options = backend.parse_options(dict(start.options))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    return str(source.make_ir(target, options, functions, modules, context))


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.MULTILINE))


def _run(tool: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True).stdout


def _moved(instructions: list[tuple[int, str]], threads: int) -> dict[str, int]:
    """Bytes that a program loads and stores in one turn of its innermost loops, and outside of them.

    A loop is what lies between the target of a backward branch and the branch. Bytes are the width of the
    instruction times the threads of the program, so predicated and repeated ones count in full.
    """
    loops = []
    for address, text in instructions:
        jump = re.search(r"\bBRA(?:\.\w+)* .*?0x([0-9a-f]+)", text)
        if jump and int(jump[1], 16) < address:
            loops.append((int(jump[1], 16), address))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    moved = {"loop_load_bytes": 0, "loop_store_bytes": 0}
    for address, text in instructions:
        access = re.search(r"\b(LDG|STG|LDGSTS)\.E(\.\S+)?", text)
        if not access or not any(start <= address <= end for start, end in inner):
            continue
        suffix = access[2] or ""
        width = next((int(w) // 8 for w in ("128", "64") if f".{w}" in suffix), 4)
        width = 2 if re.search(r"\.[US]16", suffix) else 1 if re.search(r"\.[US]8", suffix) else width
        moved["loop_store_bytes" if access[1] == "STG" else "loop_load_bytes"] += width * threads
    return moved


def _nvidia(kernel: Any, threads: int) -> Metrics:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        sass = _run("cuobjdump", "-sass", file.name)
    instructions = [(int(address, 16), text) for address, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", sass)]
    code = "\n".join(text for _, text in instructions)
    (registers,), (stack,) = re.findall(r"REG:(\d+)", usage), re.findall(r"STACK:(\d+)", usage)
    return {
        "registers": int(registers),
        "spills": _count(r"\b(LDL|STL)\b", code),
        "stack": int(stack),
        "shared": kernel.metadata.shared,
        "matrix": _count(r"\b[A-Z]*(HMMA|GMMA|DMMA|IMMA)\b", code),
        "exponentials": _count(r"\bMUFU\.EX2\b", code),
        "loads": _count(r"\b(LDG|LDGSTS)\.", code),
        "stores": _count(r"\bSTG\.", code),
        "instructions": len(instructions),
        **_moved(instructions, threads),
    }


def _amd(kernel: Any) -> Metrics:
    text = kernel.asm["amdgcn"]

    def field(name: str) -> int:
        return int(re.findall(rf"\.{name}:\s+(\d+)", text)[0])

    return {
        "registers": field("vgpr_count"),
        "spills": field("vgpr_spill_count") + field("sgpr_spill_count"),
        "stack": field("private_segment_fixed_size"),
        "shared": kernel.metadata.shared,
        "matrix": _count(r"^\s+v_mfma", text),
        "exponentials": _count(r"^\s+v_exp_f32", text),
        "loads": _count(r"^\s+(buffer|global)_load", text),
        "stores": _count(r"^\s+(buffer|global)_store", text),
        "instructions": _count(r"^\s+(v|s|buffer|global|ds|scratch|flat)_\w+", text),
    }


def measure(start: Launch, arch: str) -> Metrics:
    """Compile one start of a kernel for `arch` and count."""
    kernel = _compile(start, arch)
    return _nvidia(kernel, 32 * start.options["num_warps"]) if arch.startswith("sm_") else _amd(kernel)


def _job(job: tuple[str, str, str, int]) -> tuple[tuple[str, str, str, str], Metrics]:
    operation, build, arch, index = job
    start = recorded(operation, arch, [build])[build][index]
    return (operation, build, start.kernel.__name__, arch), measure(start, arch)


def compiled(names: Iterable[str] = (), jobs: int | None = None) -> Table:
    """Compile the builds of the operations `names` (all if empty) for every architecture.

    Parameters
    ----------
    names : iterable of str
        Operations.
    jobs : int, optional
        Processes; one for each core if not given.

    Returns
    -------
    dict
        Metrics by operation, build, kernel and architecture.

    Raises
    ------
    RuntimeError
        In a process with ``TRITON_INTERPRET`` set, where kernels cannot be compiled.
    """
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted in this process, unset it to compile")
    work = [
        (operation, build, arch, index)
        for operation in names or operations()
        for arch in ARCHITECTURES
        for build, starts in recorded(operation, arch).items()
        for index in range(len(starts))
    ]
    found: Table = {}
    with multiprocessing.get_context("spawn").Pool(jobs or os.cpu_count()) as pool:
        for (operation, build, kernel, arch), metrics in pool.imap(_job, work):
            found.setdefault(operation, {}).setdefault(build, {}).setdefault(kernel, {})[arch] = metrics
    return found


def _file(operation: str) -> Path:
    return Path(str(resources.files("solomonic.kernels").joinpath(operation, "expected.json")))


def expected(names: Iterable[str] = ()) -> tuple[Table, set[str]]:
    """What is committed, and the versions of Triton that it was compiled with."""
    found, versions = {}, set()
    for operation in names or operations():
        if _file(operation).is_file():
            content = json.loads(_file(operation).read_text(encoding="utf-8"))
            found[operation] = content["builds"]
            versions.add(content["triton"])
    return found, versions


def _write(found: Table) -> None:
    import triton

    for operation, builds in found.items():
        text = json.dumps({"triton": triton.__version__, "builds": builds}, indent=1)
        # One line for each architecture.
        text = re.sub(r"\{\s+(\"registers\"[^}]*?)\s+\}", lambda m: "{" + re.sub(r"\s+", " ", m[1]) + "}", text)
        beside = _file(operation).with_suffix(".part")
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(_file(operation))


def _flat(found: Mapping[str, Any]) -> dict[tuple[str, ...], int]:
    flat: dict[tuple[str, ...], int] = {}
    for key, value in found.items():
        if isinstance(value, Mapping):
            flat |= {(key, *rest): number for rest, number in _flat(value).items()}
        else:
            flat[key,] = value
    return flat


def differences(found: Table, wanted: Table) -> list[str]:
    """One line for each number that differs, is new or is gone."""
    new, old = _flat(found), _flat(wanted)
    return [
        f"{' / '.join(key)}: expected {old.get(key, 'nothing')}, got {new.get(key, 'nothing')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def table(found: Table) -> str:
    """The numbers as text, one line for each kernel and architecture."""
    lines = []
    for operation, builds in found.items():
        lines.append(f"\n{operation}")
        for build, kernels in builds.items():
            for kernel, architectures in kernels.items():
                for arch, metrics in architectures.items():
                    numbers = " ".join(f"{name} {value}" for name, value in metrics.items())
                    lines.append(f"  {build:28} {kernel:28} {arch:7} {numbers}")
    return "\n".join(lines)


def main() -> None:
    """The command behind ``make kernels``."""
    parser = argparse.ArgumentParser(prog="python -m solomonic.kernels.triton.aot", description=__doc__)
    parser.add_argument("operation", nargs="*", help="operations; all if none is named")
    parser.add_argument("--write", action="store_true", help="commit the numbers to expected.json")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON and compare nothing")
    parser.add_argument("--jobs", type=int, help="processes (one for each core)")
    arguments = parser.parse_args()
    found = compiled(arguments.operation, arguments.jobs)
    if arguments.json:
        print(json.dumps(found))
        return
    print(table(found))
    if arguments.write:
        _write(found)
        return
    wanted, versions = expected(arguments.operation)
    import triton

    lines = differences(found, wanted)
    print("\n" + "\n".join(lines or ["as expected"]))
    if lines:
        if versions != {triton.__version__}:
            print(f"(expected with Triton {', '.join(sorted(versions))}; this is {triton.__version__})")
        print("to accept: make kernels WRITE=1")
        sys.exit(1)


if __name__ == "__main__":
    main()
