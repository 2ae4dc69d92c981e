"""What the compiler makes of the kernels: the reader of machine code, the kernels themselves, the record."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RECORD = Path(__file__).parents[2] / "results" / "benchmarks" / "kernels_sm90.json"
Load = Callable[[str], ModuleType]


# A loop of two loads of 16 bytes, a branch past a rare case, a store, and a loop in the rare case; before it
# another one that reads less.
SASS = """
	code for sm_90
		Function : _ZN4pwlu4cuda12forward_runsIfLi4EEEv
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDG.E R1, [R2] ;                    /* 0x00 */
                                                                       /* 0x00 */
        /*0010*/              @!P0 BRA 0x0 ;                           /* 0x00 */
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;     /* 0x00 */
        /*0030*/                   LDG.E.128 R8, [R2+0x10] ;           /* 0x00 */
        /*0040*/                   FRND.FLOOR R4, R4 ;                 /* 0x00 */
        /*0050*/                   F2I.TRUNC.NTZ R4, R4 ;              /* 0x00 */
        /*0060*/                   LDS.64 R6, [R4] ;                   /* 0x00 */
        /*0070*/               @P1 BRA 0xb0 ;                          /* 0x00 */
        /*0080*/                   CALL.REL.NOINC 0x200 ;              /* 0x00 */
        /*0090*/                   STG.E.U16 [R2], R4 ;                /* 0x00 */
        /*00a0*/               @P2 BRA 0x80 ;                          /* 0x00 */
        /*00b0*/                   STG.E.128 [R2], R4 ;                /* 0x00 */
        /*00c0*/               @P0 BRA P3, 0xe0 ;                      /* 0x00 */
        /*00d0*/                   STL.64 [R1], R4 ;                   /* 0x00 */
        /*00e0*/               @P0 BRA 0x20 ;                          /* 0x00 */
        /*00f0*/                   EXIT ;                              /* 0x00 */
        /*0100*/                   BRA 0x100;                          /* 0x00 */
"""


def test_main_loop_by_hand(load: Load) -> None:
    sass = load("sass")
    (code,) = sass.read_sass(SASS)
    assert code.name == "_ZN4pwlu4cuda12forward_runsIfLi4EEEv" and len(code.instructions) == 17
    loop = code.main_loop()
    assert [hex(i.address) for i in loop] == [
        "0x20", "0x30", "0x40", "0x50", "0x60", "0x70", "0xb0", "0xc0", "0xe0"
    ]  # fmt: skip
    assert sass.accesses(loop, "LDG") == {"16": 2} and sass.accesses(loop, "STG") == {"16": 1}
    assert sass.accesses(list(code.instructions), "STG") == {"16": 1, "2": 1}
    assert sass.slow_unit(loop) == 2
    row = load("inspect_kernels").main_loop(code, "float32", "forward_runs")
    assert row["elements"] == 8 and row["instructions_per_element"] == round(9 / 8, 2)


def test_names_of_kernels(load: Load) -> None:
    name_of = load("inspect_kernels").name_of
    assert name_of("_ZN4pwlu4cuda13backward_runsINS0_8BFloat16ELi8EEEvNS0_7StreamsIT_EE") == (
        "backward_runs", "bfloat16", 8
    )  # fmt: skip
    assert name_of("_ZN4pwlu4cuda6finishIdEEvPKNS0_4SumsIT_EE") == ("finish", "float64", 1)
    with pytest.raises(ValueError, match="kernelIfE: not the name of a kernel"):
        name_of("kernelIfE")


def test_occupancy_by_registers(load: Load) -> None:
    """65536 registers are 4 blocks of 256 threads with 64 each; 65 count as 72, with which 3 fit."""
    warps = load("inspect_kernels").warps
    counts = (16, 32, 64, 65, 94, 255)
    assert [warps("forward_runs", count) for count in counts] == [64, 64, 32, 24, 16, 8]
    assert [warps("finish", count) for count in (62, 65)] == [32, 16]


def test_kernels_of_the_forward_pass(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """No spills; where a vector is 16 bytes, nothing narrower is loaded or stored."""
    inspect_kernels = load("inspect_kernels")
    try:
        inspect_kernels.find_tools()
    except ValueError as error:
        pytest.skip(f"nothing to compile or to read machine code with: {error}")
    monkeypatch.setattr(inspect_kernels, "FILES", ("forward.cu",))
    rows = inspect_kernels.inspect("sm_90")
    assert_no_spills_and_wide_accesses(rows)
    assert len(rows) == 24


def assert_no_spills_and_wide_accesses(rows: list[dict]) -> None:
    wide = 0
    for row in rows:
        name = f"{row['kernel']} {row['element']} {row['vector']}"
        assert row["spill_store_bytes"] == row["spill_load_bytes"] == row["stack_bytes"] == 0, name
        assert row["local_memory_instructions"] == 0, name
        bytes_per_access = row["vector"] * {"float64": 8, "float32": 4}.get(row["element"], 2)
        if bytes_per_access == 16:
            wide += 1
            loop = row["main_loop"]
            assert set(loop["global_loads"]) == set(loop["global_stores"]) == {"16"}, name
    assert wide >= 8  # NCHW and channels_last, four types


def test_record_and_its_page(load: Load) -> None:
    record = json.loads(RECORD.read_text())
    rows = record["sections"]["kernels"]
    assert len(rows) == 66
    assert_no_spills_and_wide_accesses(rows)
    assert RECORD.with_suffix(".md").read_text() == load("inspect_kernels").kernels_table(record)
    commit = record["environment"]["commit"] = "0123456789abcdef+changes"
    text = load("inspect_kernels").kernels_table(record)
    assert "commit 0123456789ab+changes, " in text and commit not in text


def test_no_compiler(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["inspect_kernels"])
    with pytest.raises(SystemExit, match="error: nvcc was not found"):
        load("inspect_kernels").main()
