"""Downloads that are slow, cut, refused or wrong, from a server on this machine."""

from __future__ import annotations

import hashlib
import http.client
import os
from pathlib import Path

import pytest

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.weights import fetch as fetch_module
from anomalyclip_monai.weights.fetch import NotServedError, Patience, fetch
from anomalyclip_monai.weights.published import PublishedFile

from .conftest import PATIENT, Behaviour, Server, git_blob_id

CONTENT = bytes(range(256)) * 1000
PATH = "/file.bin"


@pytest.fixture
def file(server: Server) -> PublishedFile:
    server.files[PATH] = Behaviour(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    return PublishedFile("bytes", "file.bin", server.address + PATH, len(CONTENT), sha256=digest)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.bin"


def assert_whole(target: Path) -> None:
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # no part, no note


def failure(file: PublishedFile, target: Path, patience: Patience = PATIENT) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        fetch(file, target, patience=patience)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return caught.value


def test_whole_file_with_progress(file, target):
    seen = []
    fetch(file, target, progress=lambda _file, done, total: seen.append((done, total)), patience=PATIENT)
    assert_whole(target)
    assert seen[0] == (0, 256000)
    assert seen[-1] == (256000, 256000)
    assert seen == sorted(seen)


def test_git_blob_id_will_do(file, target):
    fetch(PublishedFile("", "", file.address, 0, blob_id=git_blob_id(CONTENT)), target, patience=PATIENT)
    assert_whole(target)


def test_cut_connection_goes_on_from_where_it_was(server, file, target):
    server.files[PATH].cuts = [100_000, 50_000]
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_goes_on_from_where_an_earlier_one_was(server, file, target):
    server.files[PATH].cuts = [100_000, 0, 0, 0]
    error = failure(file, target)
    assert error.code == "E_DOWNLOAD"
    assert "cut at 100,000 of 256,000 bytes" in str(error)
    assert target.with_name("file.bin.part").stat().st_size == 100_000
    server.requests.clear()
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert server.requests == [(PATH, "bytes=100000-")]


def test_date_serves_where_there_is_no_entity_tag(server, file, target):
    server.files[PATH] = Behaviour(CONTENT, etag=None, modified="Tue, 25 Jan 2022 10:00:00 GMT", cuts=[70_000])
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert server.requests[-1] == (PATH, "bytes=70000-")


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_it_starts_anew(server, file, target, etag):
    server.files[PATH] = Behaviour(CONTENT, etag=etag, cuts=[70_000])
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert [asked for _, asked in server.requests] == [None, None]


def test_server_that_ignores_ranges(server, file, target):
    server.files[PATH] = Behaviour(CONTENT, ranges=False, cuts=[70_000])
    fetch(file, target, patience=PATIENT)
    assert_whole(target)


def test_file_that_changes_between_two_runs_is_fetched_anew(server, file, target):
    server.files[PATH] = Behaviour(b"x" * 256_000, cuts=[70_000, 0, 0, 0])
    failure(file, target)
    server.files[PATH] = Behaviour(CONTENT, etag='"v2"')
    fetch(file, target, patience=PATIENT)
    assert_whole(target)


def test_a_part_of_another_address_is_not_continued(server, file, target):
    server.files["/other"] = Behaviour(b"x" * 256_000, cuts=[70_000, 0, 0, 0])
    with pytest.raises(WeightsError):
        fetch(file, target, address=f"{server.address}/other", patience=PATIENT)
    server.requests.clear()
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert server.requests == [(PATH, None)]


def test_part_that_is_as_long_as_the_file_or_longer(server, file, target):
    server.files[PATH].cuts = [100_000, 0, 0, 0]
    failure(file, target)
    target.with_name("file.bin.part").write_bytes(CONTENT + b"more")
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert [asked for _, asked in server.requests[-2:]] == ["bytes=256004-", None]


def test_slow_server(server, file, target):
    server.files[PATH].delay = 0.01
    fetch(file, target, patience=PATIENT)
    assert_whole(target)


def test_stalled_server_counts_as_cut(server, file, target):
    server.files[PATH].stalls = [100_000, 0]
    patience = Patience(attempts=1, pause=0, timeout=0.1)
    assert "cut at 100,000 of 256,000 bytes: timed out" in str(failure(file, target, patience))
    fetch(file, target, patience=patience)
    assert_whole(target)
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=100000-"]


def test_length_need_not_be_told(server, file, target):
    server.files[PATH].length = False
    fetch(file, target, patience=PATIENT)
    assert_whole(target)


def test_redirects_are_followed_and_ranges_go_with_them(server, file, target):
    server.files["/cdn"] = Behaviour(CONTENT, cuts=[100_000])
    server.files[PATH].redirect = f"{server.address}/cdn"
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert server.requests == [(PATH, None), ("/cdn", None), (PATH, "bytes=100000-"), ("/cdn", "bytes=100000-")]


def test_passing_troubles_of_a_server_are_waited_out(server, file, target):
    server.files[PATH].statuses = [503, 429]
    fetch(file, target, patience=PATIENT)
    assert_whole(target)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_served(server, file, target, status):
    server.files[PATH].statuses = [status]
    error = failure(file, target)
    assert isinstance(error, NotServedError)
    assert str(error).startswith(f"E_DOWNLOAD: file.bin is not served: the server answers {status} ")
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"<html>log in first</html>", CONTENT[:-1] + b"?", CONTENT + b"?"])
def test_wrong_bytes_are_refused_and_not_kept(server, file, target, content):
    server.files[PATH].content = content
    error = failure(file, target)
    assert error.code == "E_DOWNLOAD"
    assert f"the {len(content):,} bytes that came are not the published file (sha256 " in str(error)
    assert list(target.parent.iterdir()) == []


def test_an_endless_body_is_given_up_soon(server, file, target):
    server.files[PATH] = Behaviour(CONTENT, length=False, endless=True)
    error = failure(file, target)
    assert "E_DOWNLOAD: the server sends more than the 256,000 bytes of file.bin" in str(error)
    assert server.files[PATH].sent < 2**24  # what the sockets hold besides
    assert list(target.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_a_length_that_is_too_long_is_not_waited_for(server, file, target):
    server.files[PATH] = Behaviour(CONTENT, claims="99999999999", stalls=[0])
    assert "the server sends more than the 256,000 bytes" in str(failure(file, target))


@pytest.mark.parametrize("claims", ["abc", "", "-1", "0x10", "9" * 5000, "1.5", "256000, 256000"])
def test_a_length_that_is_none(server, file, target, claims):
    server.files[PATH] = Behaviour(CONTENT, claims=claims)
    fetch(file, target, patience=PATIENT)
    assert_whole(target)


def test_a_range_of_absurd_numbers(server, file, target):
    server.files[PATH].cuts = [100_000, 0, 0, 0]
    failure(file, target)
    headers = http.client.HTTPMessage()
    headers["Content-Range"] = f"bytes {'1' * 5000}-2/{'9' * 5000}"
    part = fetch_module._Part(target, file.address)
    with pytest.raises(fetch_module._CutError, match="another range"):
        fetch_module._total(headers, 100_000, part)


@pytest.mark.parametrize("name", ["file.bin.part", "file.bin.part.json"])
@pytest.mark.parametrize("kind", ["symbolic", "hard", "fifo", "dangling"])
@pytest.mark.timeout(20)
def test_what_lies_at_the_name_of_a_part_is_not_written_through(file, target, tmp_path, name, kind):
    target.parent.mkdir()
    treasure, planted = tmp_path / "treasure", target.parent / name
    treasure.write_text("mine")
    if kind == "symbolic":
        planted.symlink_to(treasure)
    elif kind == "dangling":
        planted.symlink_to(tmp_path / "new file")
    elif kind == "hard":
        planted.hardlink_to(treasure)
    else:
        os.mkfifo(planted)
    fetch(file, target, patience=PATIENT)
    assert_whole(target)
    assert treasure.read_text() == "mine"
    assert not (tmp_path / "new file").exists()


def test_a_link_planted_meanwhile_is_not_followed(file, target, tmp_path, monkeypatch):
    (tmp_path / "treasure").write_text("mine")
    check = fetch_module._check_room

    def plant(path, needed):
        check(path, needed)
        path.symlink_to(tmp_path / "treasure")

    monkeypatch.setattr(fetch_module, "_check_room", plant)
    assert failure(file, target).code == "E_WRITE"
    assert (tmp_path / "treasure").read_text() == "mine"


def test_words_of_a_server_are_shown_short_and_escaped(server, file, target):
    server.files[PATH].statuses = [404]
    server.files[PATH].reason = "Gone\x1b[31m E_FORGED: " + "x" * 5000
    message = str(failure(file, target))
    assert "\x1b" not in message
    assert r"Gone\x1b[31m E_FORGED" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "redirect",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "javascript:1",
        "http://[::1",
        "http://" + "a" * 70 + ".b/",
    ],
)
def test_redirects_to_no_web_address_are_refused(server, file, target, redirect):
    server.files[PATH].redirect = redirect
    error = failure(file, target)
    assert error.code == "E_DOWNLOAD"
    assert len(server.requests) == 1
    assert list(target.parent.iterdir()) == []


def test_nobody_listens(server, file, target):
    address = server.address
    server.shutdown()
    server.server_close()
    error = failure(file, target)
    assert str(error).startswith(f"E_DOWNLOAD: {address.removeprefix('http://')} cannot be reached: ")


def test_proxy_of_the_environment(server, file, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    server.files["http://weights.invalid/file.bin"] = Behaviour(CONTENT)
    fetch(file, target, address="http://weights.invalid/file.bin", patience=PATIENT)
    assert_whole(target)


def test_disk_too_small(file, target, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert failure(file, target).code == "E_WRITE"


def test_folder_that_cannot_be_made(file, tmp_path):
    (tmp_path / "new").write_text("a file is in the way")
    error = failure(file, tmp_path / "new" / "file.bin")
    assert error.code == "E_WRITE"
