#!/usr/bin/env bash
# From nothing to the paper's medical table on this machine; docs/reproduce.md says what it needs and what to expect.
#
#   docs/reproduce.sh ROOT OUT [options of `anomalyclip evaluate`, such as --device cuda:0]
#
# ROOT holds a folder for each data set, OUT takes the reports. The same command again goes on where a stopped one was.
# VENV=DIR    make a virtual environment there, with the package of this checkout in it, and use it
# FROM=DIR    take the weights from this folder, for a machine without a connection
# MIRROR=URL  fetch the weights from below this address

set -euo pipefail

TOLERANCE=0.5 # in hundredths; docs/reproduce.md says why

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

step() {
    printf '\n== %s\n' "$*"
}

prepare_venv() {
    if [[ ! -x $VENV/bin/anomalyclip ]]; then
        step "virtual environment in $VENV"
        python3 -m venv "$VENV"
        "$VENV/bin/pip" install "$(dirname "${BASH_SOURCE[0]}")/.."
    fi
    PATH=$(cd "$VENV/bin" && pwd):$PATH
}

# Every set below ROOT with the prompts of one training; an image that failed does not stop the others.
measure() {
    local prompts=$1 code=0
    shift
    anomalyclip evaluate --all "$root" --output "$out/$prompts" --model vitl14_336 --protocol paper "$@" || code=$?
    ((code <= 1)) || exit "$code"
    ((code == 0)) || failed=1
}

verdict() {
    python3 - "$out" "$TOLERANCE" <<'PYTHON'
import json
import sys
from pathlib import Path

out, tolerance = Path(sys.argv[1]), float(sys.argv[2])

SETS = {
    "headct": "HeadCT", "brainmri": "BrainMRI", "br35h": "Br35H", "covid19": "COVID-19", "isic": "ISIC",
    "colondb": "CVC-ColonDB", "clinicdb": "CVC-ClinicDB", "kvasir": "Kvasir-SEG", "endo": "Endo", "tn3k": "TN3K",
}


def row(*cells):
    print("{:<13} {:>6}  {:<11} {:>6} {:>8} {:>6} {:>8} {:>6}".format(*cells).rstrip())


def report(prompts, name):
    path = out / prompts / name / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def value(report, measure):
    """In hundredths, None where it is undefined or was not measured."""
    found = next(iter(report["methods"].values()))["measures"].get(measure, {}) if report else {}
    return 100 * found["value"] if "value" in found else None


def cells(value, published):
    return ("-", "") if value is None else (f"{value:.1f}", f"{value - published:+.1f}")


def judge(report, differences):
    if report["protocol"]["name"] != "paper":
        return "no verdict, the protocol is not the paper's"
    if (precision := report["options"]["precision"]) != "float32":
        return f"no verdict, it was computed in {precision}"
    if not report["complete"]:
        return f"no verdict, {report['note']}"
    if report["failed"]:
        return f"no verdict, {len(report['failed'])} of the images failed"
    outside = [f"{title} {by:+.1f}" for title, by in differences.items() if abs(round(by, 1)) > tolerance]
    if len(differences) < len(report["published"]):
        return "no verdict, a published measure is undefined"
    return f"differs by {', '.join(outside)}" if outside else f"within the tolerance of {tolerance:g}"


row("", "", "", "", "MVTec AD", "", "VisA", "")
row("set", "images", "measure", "paper", "prompts", "diff.", "prompts", "diff.")
verdicts, run = [], None
for name, title in SETS.items():
    paper, other = report("mvtec", name), report("visa", name)
    if paper is None:
        verdicts.append(f"{title}: not measured, no folder below ROOT was taken for it, or it failed as a whole")
        continue
    run, differences, first = run or paper, {}, (title, paper["samples"]["count"])
    for measure, published in paper["published"].items():
        ours, measure_title = value(paper, measure), paper["measure_titles"].get(measure, measure)
        if ours is not None:
            differences[measure_title] = ours - 100 * published
        both = (*cells(ours, 100 * published), *cells(value(other, measure), 100 * published))
        row(*first, measure_title, f"{100 * published:.1f}", *both)
        first = ("", "")
    verdicts.append(f"{title}: {judge(paper, differences)}")
print("", *verdicts, sep="\n")
if run:
    model = ", ".join(f"{key} {text[:12]}" for key, text in run["model"].items() if key != "bundle")
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    print(f"\nmodel: {model}\nversions: {versions}; device: {run['device']}; protocol: {run['protocol']['id']}")
PYTHON
}

(($# >= 2)) && [[ $1 != -* && $2 != -* ]] || usage
root=$1 out=$2 failed=0
shift 2

if [[ -n ${VENV:-} ]]; then prepare_venv; fi
if ! command -v anomalyclip >/dev/null; then
    echo "anomalyclip is not installed: pip install $(dirname "${BASH_SOURCE[0]}")/.., or set VENV=DIR" >&2
    exit 2
fi
if [[ ! -d $root ]]; then
    echo "no such folder: $root: make it, with a folder for each data set (docs/reproduce.md)" >&2
    exit 2
fi

step "weights: the backbone, and the prompts of both trainings"
anomalyclip download vitl14_336 --prompts both ${FROM:+--from "$FROM"} ${MIRROR:+--url "$MIRROR"}

step "prompts trained on MVTec AD, those of the paper's medical table"
measure mvtec "$@"

step "prompts trained on VisA"
measure visa --prompts visa "$@"

step "ours beside the paper's"
verdict | tee "$out/verdict.txt"
exit "$failed"
