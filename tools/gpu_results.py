"""What the steps of tools.gpu_check leave behind, for the record: counts, records of their own, pages."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.latency_table import latency_table, table_4
from tools.paper import PAPER

# What a reader makes of a step: its result for the record, and what is wrong with it ("" if nothing is).
Result = tuple[dict[str, Any], str]
# Given the folder that the step wrote to, what it printed, and whether it was a dry run.
Reader = Callable[[Path, str, bool], Result]

# At most this many times ReLU's time, by kind of measurement and mode.
LIMITS = {
    ("inference", "eager"): 1.03,
    ("inference", "cuda-graph"): 1.03,
    ("training_step", "eager"): 1.05,
}
# What compute-sanitizer says where the machine does not let it work.
REFUSALS = ("Device not supported", "Unable to find injection library", "Debugger is not initialized")


def nothing(folder: Path, output: str, dry_run: bool) -> Result:
    """Return no result: that the command ended well is all there is."""
    return {}, ""


def build_info(folder: Path, output: str, dry_run: bool) -> Result:
    """Return what `pwlu.build_info()` said; wrong where its CUDA library is not in use."""
    info = json.loads(output.strip().splitlines()[-1])
    wrong = not dry_run and info["cuda_status"] != "loaded"
    return info, f"the CUDA library is {info['cuda_status']}" if wrong else ""


def junit(name: str) -> Reader:
    """Return the reader of pytest's junit file `name`.xml."""

    def read(folder: Path, output: str, dry_run: bool) -> Result:
        path = folder / f"{name}.xml"
        if not path.exists():
            return {}, "pytest left no results"
        try:
            suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
        except ElementTree.ParseError as error:  # a SyntaxError, which no caller expects of a file
            raise ValueError(f"{path.name} is no XML, or not all of it: {error}") from error
        count = {
            key: sum(int(suite.get(key, 0)) for suite in suites)
            for key in ("tests", "failures", "errors", "skipped")
        }
        passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
        bad = "" if passed or dry_run else "no test for a GPU ran"
        return {"passed": passed, **count, "failed": failed_tests(suites)}, bad

    return read


def failed_tests(suites: list[ElementTree.Element]) -> list[str]:
    """Return the names of the tests that did not pass, with the first line of why."""
    names = []
    for case in (case for suite in suites for case in suite.iter("testcase")):
        for problem in (*case.findall("failure"), *case.findall("error")):
            reason = problem.get("message", "").splitlines()[:1]
            names.append(": ".join([f"{case.get('classname')}.{case.get('name')}", *reason]))
    return names


def record_of(name: str) -> Reader:
    """Return the reader of a program that writes `name`.json and, beside it, the page of that record."""

    def read(folder: Path, output: str, dry_run: bool) -> Result:
        path = folder / f"{name}.json"
        if not path.exists():
            return {}, "it left no record"
        return {"record": json.loads(path.read_text()), "page": path.with_suffix(".md").read_text()}, ""

    return read


def latency(name: str) -> Reader:
    """Return the reader of a record of tools.latency, with PWLU's ratios to ReLU beside their targets."""

    def read(folder: Path, output: str, dry_run: bool) -> Result:
        path = folder / f"{name}.json"
        if not path.exists():
            return {}, "it left no record"
        # Its command names the folder, which is gone afterwards.
        record = json.loads(path.read_text().replace(str(folder), "FOLDER"))
        targets = [] if dry_run else list(latency_targets(record))
        return {"record": record, "page": latency_table(record, table_4(PAPER)), "targets": targets}, ""

    return read


def latency_targets(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every ratio of PWLU to ReLU that has a limit."""
    for kind in ("inference", "training_step"):
        for row in record[kind]:
            limit = LIMITS.get((kind, row["mode"]))
            if row["activation"] == "pwlu" and limit is not None:
                ratio = row["ratio_to_relu"]
                case = f"{row['model']}, {kind.replace('_', ' ')}, {row['mode']}"
                met = ratio <= limit
                yield {"case": case, "what": "pwlu / relu", "value": ratio, "limit": limit, "met": met}


def sanitizer(folder: Path, output: str, dry_run: bool) -> Result:
    """Return the summary that compute-sanitizer ends with; wrong where there is none."""
    if dry_run:
        return {}, ""
    summary = re.findall(r"^=+ (\w+ SUMMARY: .*)$", output, re.MULTILINE)
    cases = re.findall(r"^\d+ cases, \d+ wrong$", output, re.MULTILINE)
    bad = "" if summary and cases else "no summary of compute-sanitizer, or not all cases ran"
    return {"summary": summary, "cases": cases}, bad


def refusal(output: str) -> str:
    """Return compute-sanitizer's line that it cannot work on this machine, or an empty text."""
    lines = (line.strip("= ") for line in output.splitlines())
    return next((line for line in lines if any(text in line for text in REFUSALS)), "")
