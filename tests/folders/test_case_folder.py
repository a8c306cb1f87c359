"""The files of a case: old, new or absent after a kill at any step, and nothing of others touched."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.folders import locks
from anomalyclip_monai.folders.case_folder import hold, recover, staging_of
from anomalyclip_monai.folders.marker import MARKER, note_of, own_files

OLD = {"heatmap.nii.gz": "old", "heatmap.dcm": "old", "scores.json": "old"}
NEW = {"heatmap.nii.gz": "new", "preview.png": "new", "scores.json": "new"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may run after it."""


def write(folder: Path, files: dict[str, str], **note: str) -> None:
    with hold(folder) as place, place.replace(**note) as new:
        for name, text in files.items():
            (new / name).write_text(text)


def seen(folder: Path) -> dict[str, str]:
    """What a user sees in the folder of a case."""
    if not folder.exists():
        return {}
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name != MARKER}


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".anomalyclip*") if path.name != MARKER]


def test_a_case_is_written_and_replaced_as_a_whole(tmp_path: Path) -> None:
    case = tmp_path / "sub" / "case"
    write(case, OLD, settings="a")
    assert seen(case) == OLD
    assert note_of(case) == {"anomalyclip": 1, "kind": "case", "files": sorted(OLD), "settings": "a"}
    write(case, NEW)
    assert seen(case) == NEW  # no heatmap.dcm of the earlier run beside it
    assert own_files(case) == {MARKER, *NEW}
    assert hidden(tmp_path) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    case = tmp_path / "case"
    write(case / "nested", OLD)
    write(case, OLD)
    (case / "notes.txt").write_text("a reader's")
    (case / "views").mkdir()
    write(case, NEW)
    assert seen(case) == {**NEW, "notes.txt": "a reader's"}
    assert seen(case / "nested") == OLD
    assert (case / "views").is_dir()


@pytest.mark.parametrize("name", ["preview.png", "scores.json"])
def test_a_file_of_others_is_not_overwritten(tmp_path: Path, name: str) -> None:
    case = tmp_path / "case"
    case.mkdir()
    (case / name).write_text("of others")
    with pytest.raises(OutputError, match=r"^E_WRITE: a file is there that was not written by this program") as caught:
        write(case, NEW)
    assert caught.value.path == case / name
    assert seen(case) == {name: "of others"}
    assert hidden(tmp_path) == []


def test_a_folder_in_the_place_of_a_file_of_ours_is_not_removed(tmp_path: Path) -> None:
    case = tmp_path / "case"
    write(case, OLD)
    (case / "scores.json").unlink()
    (case / "scores.json").mkdir()
    (case / "scores.json" / "notes").write_text("a reader's")
    with pytest.raises(OutputError, match="not written by this program"):
        write(case, NEW)
    assert (case / "scores.json" / "notes").is_file()


def test_results_of_0_1_0_are_ours(tmp_path: Path) -> None:
    scores = {
        "score": 0.5,
        "slice_scores": [0.5],
        "lesions": [],
        "threshold": {},
        "model": {"bundle": "anomalyclip_tiny"},
    }
    for index, (versions, ours) in enumerate([({"anomalyclip-monai": "0.1.0"}, True), ({"torch": "2"}, False)]):
        case = tmp_path / str(index)
        case.mkdir()
        (case / "scores.json").write_text(json.dumps({**scores, "versions": versions}))
        for name in ("mask.dcm", "notes.txt"):
            (case / name).write_text("")
        assert own_files(case) == ({"scores.json", "mask.dcm"} if ours else set())
    write(tmp_path / "0", NEW)
    assert seen(tmp_path / "0") == {**NEW, "notes.txt": ""}


@pytest.mark.parametrize("content", ["", "[]", '{"grader": 1}', "[" * 20000, '{"kind": "case", "files": ["../a"]}'])
def test_a_marker_is_read_with_care(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text("of others")
    case = tmp_path / "case"
    case.mkdir()
    (case / MARKER).write_text(content)
    (case / "scores.json").write_text(content)
    assert own_files(case) <= {MARKER}


def test_a_pipe_that_is_called_as_a_marker_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MARKER)
    os.mkfifo(tmp_path / "scores.json")
    assert own_files(tmp_path) == frozenset()  # and no wait for ever


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_leaves_the_old_case(tmp_path: Path, error: BaseException) -> None:
    def fail(case: Path) -> None:
        with hold(case) as place, place.replace() as new:
            (new / "scores.json").write_text("new")
            raise error

    for case, left in ((tmp_path / "a", OLD), (tmp_path / "b" / "c", {})):
        if left:
            write(case, left)
        with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
            fail(case)
        assert seen(case) == left
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@contextlib.contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that changes the disk fails from one step on, as for a process that is no more; its locks go."""
    count, opened = 0, []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            done = call(*arguments, **options)
            if name == "open":
                opened.append(done)
            return done

        return counted

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "open"):
            patch.setattr(os, name, counting(name, getattr(os, name)))
        yield
    for descriptor in opened:
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.mark.parametrize("before", [{}, OLD], ids=["nothing before", "old before"])
@pytest.mark.parametrize("look", ["recover", "next run"])
def test_killed_after_any_step_a_case_is_old_new_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], look: str
) -> None:
    came = []
    for step in range(200):
        out = tmp_path / str(step)
        case = out / "case"
        out.mkdir()
        if before:
            write(case, before)
        killed = False
        with killed_at(step, monkeypatch):
            try:
                write(case, NEW)
            except Killed:
                killed = True
        if not killed:
            break
        if look == "recover":
            recover(out)
        else:
            with hold(case):
                pass
        assert seen(case) in (before, NEW), step
        assert hidden(out) == [], step
        came.append(seen(case) == NEW)
        write(case, NEW)
        assert seen(case) == NEW
    assert killed is False
    assert came == sorted(came)  # first the old, from one step on the new
    assert set(came) == {False, True}


def test_a_case_is_held_by_one_process(tmp_path: Path) -> None:
    case = tmp_path / "case"
    with hold(case), pytest.raises(OutputError, match=r"^E_BUSY: another run is at this case"), hold(case):
        pass
    with hold(case):
        recover(tmp_path)  # does not touch what is held
        assert staging_of(case).is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from anomalyclip_monai.folders.case_folder import hold
with hold(Path({str(tmp_path / "case")!r})) as place, place.replace() as new:
    (new / "scores.json").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="E_BUSY"), hold(tmp_path / "case"):
            pass
        process.send_signal(signal.SIGKILL)
    start = time.monotonic()
    recover(tmp_path)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_locks_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", none)
    write(tmp_path / "case", NEW)
    assert seen(tmp_path / "case") == NEW
    assert "has no locks" in caplog.text


def test_what_only_looks_like_ours_stays(tmp_path: Path) -> None:
    lookalike = staging_of(tmp_path / "case")
    lookalike.mkdir()
    (lookalike / "notes.txt").write_text("of others")
    recover(tmp_path)
    with pytest.raises(OutputError, match="E_WRITE"):
        write(tmp_path / "case", NEW)
    assert (lookalike / "notes.txt").read_text() == "of others"


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
def test_what_is_in_the_way_of_a_folder(tmp_path: Path, kind: str) -> None:
    case, other = tmp_path / "case", tmp_path / "other"
    other.mkdir()
    if kind == "file":
        case.write_text("of others")
    else:
        case.symlink_to(other if kind == "link" else case)
    with pytest.raises(OutputError, match="E_WRITE"):
        write(case, NEW)
    with pytest.raises(OutputError, match="E_WRITE"):
        write(case / "below" if kind != "link" else case, NEW)
    assert list(other.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", ["rename", "unlink", "rmdir", "mkdir"])
def test_a_signal_at_any_step_leaves_nothing_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: str
) -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, handler)
    try:
        for step in range(1, 40):
            case = tmp_path / str(step) / "case"
            write(case, OLD)
            count, call = 0, getattr(os, at)

            def signalled(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:  # noqa: B023
                    os.kill(os.getpid(), number)
                return call(*arguments, **options)  # noqa: B023

            with monkeypatch.context() as patch:
                patch.setattr(os, at, signalled)
                try:
                    write(case, NEW)
                except KeyboardInterrupt:
                    interrupted = True
                else:
                    interrupted = False
            assert seen(case) in (OLD, NEW), step
            assert hidden(tmp_path / str(step)) == [], step
            if count < step:
                break
            assert interrupted
        assert count < step
    finally:
        signal.signal(number, before)


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    for case in (tmp_path / "out" / "case", tmp_path / "out" / "sub" / "case"):
        with pytest.raises(OutputError, match="E_WRITE: cannot write: a file is where a folder should be"):
            write(case, NEW)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux")
def test_a_place_where_no_folder_can_be_made() -> None:
    start = time.monotonic()
    with pytest.raises(OutputError, match="E_WRITE: cannot write: "):
        write(Path("/proc/anomalyclip/case"), NEW)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("call", ["open", "write"])
def test_no_room_for_the_marker_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OutputError, match=r"No space left on device .* - make room, or choose another folder"):
            write(tmp_path / "sub" / "case", NEW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_whole_runs_killed_at_random_moments() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, script, "--runs", "--count", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 runs of " in done.stdout


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, script, "--count", "12"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("12 kills within ")
