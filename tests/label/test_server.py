"""``anomalyclip serve`` on a folder: what 3D Slicer's client and others get, and what they do not get."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from label_server import until

import anomalyclip_monai as ac

pytestmark = [
    pytest.mark.label,
    pytest.mark.timeout(280),
    # 3D Slicer's client leaves files and connections to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

CASES = {
    "lesion": "lesion.nii.gz",
    "deep__er__straight": "deep/er/straight.nii.gz",
    "las": "las.nii",
    "mr__series": "mr/series",
    "photo": "photo.png",
}
"""Ids of the images that can be read, and where they are."""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def before(studies) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in studies.rglob("*"))


@pytest.fixture(scope="module")
def server(serve, studies, work, before):
    return serve(str(studies), "--work", str(work))


@pytest.fixture
def client(server, slicer, tmp_path):
    return slicer(server.address, tmp_path / "received")


@pytest.fixture
def ask(server):
    """POST /infer: -> the answer."""

    def post(model: str, image: str, output: str = "json", **params: Any) -> requests.Response:
        where = {"image": image, "output": output}
        return requests.post(
            f"{server.address}/infer/{model}", params=where, data={"params": json.dumps(params)}, timeout=120
        )

    return post


def array(file: str | Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


def test_it_says_where_it_is_and_what_it_writes(server, work):
    until(lambda: len(server.printed) >= 3)
    assert server.printed[:3] == [
        f"work list, and address for 3D Slicer's module MONAI Label: {server.address}\n",
        f"written: labels/, datastore_v2.json and anomalyclip_scores.json in {work}\n",
        "research use only, not a medical device; end with Ctrl-C\n",
    ]


@pytest.mark.parametrize("image", CASES)
def test_mask_and_heatmap_are_the_commands(client, studies, image):
    expected = ac.localize(studies / CASES[image], fast=True, device="cpu")
    assert expected.lesions
    mask, params = client.infer("anomaly", image, {"result_extension": ".nii.gz"})
    heatmap, _ = client.infer("anomaly_heatmap", image, {"result_extension": ".nii.gz"})
    assert np.array_equal(array(mask), np.asarray(expected.mask)[0])
    assert np.array_equal(array(heatmap), np.asarray(expected.heatmap)[0])
    assert array(heatmap).dtype == np.float32
    saved = expected.save(Path(mask).parent / "command")
    for name, file in (("mask", mask), ("heatmap", heatmap)):
        assert np.array_equal(nib.load(saved / f"{name}.nii.gz").affine, nib.load(file).affine)
    scores = json.loads((saved / "scores.json").read_text())
    for name in set(scores) - {"case", "seconds"}:
        assert params[name] == scores[name], name


def test_bands_are_the_mask_in_steps(client):
    mask, _ = client.infer("anomaly", "lesion", {"result_extension": ".nii.gz"})
    found, params = client.infer("anomaly_bands", "lesion", {"result_extension": ".nii.gz"})
    assert np.array_equal(array(found) >= 2, array(mask) > 0)
    assert set(np.unique(array(found))) == {0, 1, 2, 3}
    assert params["label_names"] == {"mildly abnormal": 1, "marked lesion": 2, "lesion core": 3}
    assert Path(mask).name != Path(found).name


def test_the_file_that_slicer_asks_for(client):
    """NRRD, uint8, as its module does for every segmentation; no two answers have one name."""
    import nrrd

    asked = {"result_extension": ".nrrd", "result_dtype": "uint8"}
    first, _ = client.infer("anomaly", "lesion", asked)
    second, _ = client.infer("anomaly", "lesion", asked)
    plain, _ = client.infer("anomaly", "lesion", {"result_extension": ".nii.gz"})
    read, header = nrrd.read(first, index_order="F")
    assert first != second
    assert read.dtype == np.uint8
    assert np.array_equal(read, array(plain))
    affine = np.column_stack([header["space directions"].T, header["space origin"]])
    assert np.allclose(np.diag([-1, -1, 1]) @ affine, nib.load(plain).affine[:3], atol=1e-5)


def test_a_heatmap_is_never_cut_to_whole_numbers(client, slicer):
    with pytest.raises(slicer.error) as refused:
        client.infer("anomaly_heatmap", "lesion", {"result_dtype": "uint8"})
    assert "Status: 422" in refused.value.msg
    assert "E_OPTION: result_dtype 'uint8' does not hold values from 0 to 1" in refused.value.msg


@pytest.mark.parametrize(
    "options",
    [{"threshold": "0.9"}, {"threshold": 0.2}, {"preset": "mr_body"}, {"slice_axis": "coronal", "axes": "1"}],
)
def test_options_of_a_request_act(ask, studies, options):
    expected = json.loads(
        json.dumps(ac.localize(studies / "lesion.nii.gz", fast=True, device="cpu", **options).scores())
    )
    answer = ask("anomaly", "lesion", **options).json()
    for name in ("score", "slice_scores", "threshold", "lesions", "preset"):
        assert answer[name] == expected[name], name


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "nonsense"},
        {"preset": "/etc/passwd"},
        {"threshold": "nonsense"},
        {"threshold": 0},
        {"threshold": True},
        {"threshold_low": "2"},
        {"slice_axis": "nonsense"},
        {"axes": "7"},
        {"min_volume": "much"},
        {"fast": "perhaps"},
        {"result_extension": ".exe"},
    ],
)
def test_nonsense_is_refused_in_a_line(ask, options):
    answer = ask("anomaly", "lesion", **options)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("E_")
    assert "/tmp" not in answer.json()["detail"]


@pytest.mark.parametrize("image", ["", "..", ".", "nothere", "/etc/hostname", "lesion.nii.gz", "../lesion", "labels"])
def test_there_are_no_images_but_those_of_the_list(ask, server, image):
    began = time.monotonic()
    answer = ask("anomaly", image)
    assert time.monotonic() - began < 1
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("E_NOT_FOUND: the studies have no image")
    assert requests.get(f"{server.address}/datastore/image", {"image": image}, timeout=10).status_code == 404


@pytest.mark.parametrize("name", ["image", "sent_image", "session", "model"])
def test_a_request_cannot_name_a_path_in_its_params(server, studies, name):
    where, params = {"image": "nothere", "output": "json"}, {name: str(studies / "lesion.nii.gz")}
    sent = {"params": json.dumps(params)}
    answer = requests.post(f"{server.address}/infer/anomaly", params=where, data=sent, timeout=10)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("E_NOT_FOUND")


def test_what_is_not_there_is_told(ask, server):
    answer = ask("nonsense", "lesion")
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "E_MODEL: no model 'nonsense' - choose from: anomaly, anomaly_bands, anomaly_heatmap",
    )
    for way, path in (
        ("POST", "/activelearning/nonsense"),
        ("POST", "/scoring/nonsense"),
        ("POST", "/infer/anomaly?session_id=../../etc"),
    ):
        answer = requests.request(way, server.address + path, timeout=10)
        assert (answer.status_code, answer.json()["detail"][:2]) == (404, "E_"), path


def test_a_case_that_cannot_be_read_is_told(ask, server):
    answer = ask("anomaly", "broken")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("E_")
    assert "(broken)" in answer.json()["detail"]


def test_labels_stay_in_their_folder(server, work, tmp_path):
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), label)
    for where in ({"image": "las", "tag": "../../out"}, {"image": "nothere", "tag": "final"}):
        with label.open("rb") as file:
            answer = requests.put(f"{server.address}/datastore/label", params=where, files={"label": file}, timeout=10)
        assert answer.status_code in (404, 422)
    assert not (work.parent / "out").exists()
    answer = requests.delete(f"{server.address}/datastore/image", params={"id": "las"}, timeout=10)
    assert answer.status_code == 422


def test_an_image_that_is_sent_and_one_of_a_session(client, server, studies):
    expected = np.asarray(ac.localize(studies / "quiet.nii.gz", fast=True, device="cpu").mask)[0]
    sent, _ = client.infer("anomaly", "", {"result_extension": ".nii.gz"}, file=str(studies / "quiet.nii.gz"))
    session = client.create_session(str(studies / "quiet.nii.gz"))["session_id"]
    kept, _ = client.infer("anomaly", "", {"result_extension": ".nii.gz"}, session_id=session)
    assert np.array_equal(array(sent), expected)
    assert np.array_equal(array(kept), expected)


def test_it_is_alive_while_it_infers(ask, server):
    """And two requests at once are one run; nothing runs in a second process with a second model."""
    answers: list[dict[str, Any]] = []
    options = {"preset": "mr_body", "smooth_mm": 1.5, "axes": "3"}  # not asked for before

    def infer() -> None:
        answers.append(ask("anomaly", "lesion", **options).json())

    threads = [threading.Thread(target=infer) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert requests.get(f"{server.address}/info/", timeout=10).ok
    waited, running = time.monotonic() - began, any(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    assert waited < 1
    assert running
    assert answers[0]["seconds"] == answers[1]["seconds"]  # of one run
    requests.post(f"{server.address}/scoring/anomaly_score", timeout=10)
    process = server.process.pid
    assert Path(f"/proc/{process}/task/{process}/children").read_text() == ""


def test_the_work_list_begins_with_the_most_suspicious_case(client, server, slicer, serve, studies, work, before):
    def scored() -> Any:
        status = requests.get(f"{server.address}/scoring/", timeout=10).json()
        return status["scored"] + len(status["failed"]) == status["images"] and status

    status = until(scored)
    assert list(status["failed"]) == ["broken"]
    assert status["failed"]["broken"].startswith("E_")
    listed = requests.get(f"{server.address}/datastore/?output=all", timeout=10).json()["objects"]
    scores = {image: entry["image"]["info"].get("anomaly_score") for image, entry in listed.items()}
    assert set(scores) == {*CASES, "quiet", "broken"}
    assert scores["broken"] is None
    order = sorted((image for image in scores if scores[image] is not None), key=lambda image: (-scores[image], image))
    page = requests.get(server.address, timeout=10).text
    places = [page.index(f">{image}</a>") for image in [*order, "broken"]]
    assert places == sorted(places)
    assert "http" not in page.replace("http-equiv", "")  # nothing comes from elsewhere
    assert client.next_sample("most_anomalous", {})["id"] == order[0]
    assert Path(client.next_sample("most_anomalous", {})["path"]).is_file()

    label, _ = client.infer("anomaly", order[0], {"result_extension": ".nii.gz"})
    client.save_label(order[0], label, params={"label_info": [{"name": "marked lesion", "idx": 1}]})
    assert client.next_sample("most_anomalous", {})["id"] == order[1]
    assert np.array_equal(array(work / "labels" / "final" / f"{order[0]}.nii.gz"), array(label))

    assert server.end() == 143
    again = serve(str(studies), "--work", str(work), "--no-score")
    next_one = slicer(again.address, work / "received").next_sample("most_anomalous", {})
    assert (next_one["id"], next_one["anomaly_score"]) == (order[1], scores[order[1]])
    assert next_one["unlabelled"] == len(scores) - 1
    assert again.end() == 143
    assert sorted((path, path.stat().st_mtime_ns) for path in studies.rglob("*")) == before


def test_nothing_is_left_after_the_end(serve, studies, slicer, tmp_path):
    server = serve(str(studies), "--no-score", "--work", str(tmp_path / "work"), cwd=tmp_path)
    client = slicer(server.address, tmp_path / "received")
    client.create_session(str(studies / "quiet.nii.gz"))
    client.infer("anomaly_bands", "mr__series", {})
    requests.get(f"{server.address}/datastore/image", {"image": "mr__series"}, timeout=30)
    address, asked = f"{server.address}/infer/anomaly?image=lesion", {"params": '{"axes": "3", "slice_batch": 1}'}
    slow = threading.Thread(target=lambda: requests.post(address, data=asked, timeout=60))
    slow.start()
    time.sleep(0.3)
    assert len(list(server.temporary.iterdir())) == 1
    assert oct(next(server.temporary.iterdir()).stat().st_mode)[-3:] == "700"
    began = time.monotonic()
    assert server.end() == 143
    assert time.monotonic() - began < 15
    slow.join()
    assert list(server.temporary.iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == ["received", "tmp", "work"]
    assert [path.name for path in (tmp_path / "work").rglob("*.nii*")] == []
    assert server.printed[-1] == "terminated\n"


def test_the_port_of_another_server_is_refused(serve, studies, tmp_path):
    server = serve(str(studies), "--no-score", "--work", str(tmp_path / "work"))
    port = server.address.rsplit(":", 1)[1]
    with pytest.raises(AssertionError, match=rf"E_PORT: port {port} of 127.0.0.1 cannot be used"):
        serve(str(studies), "--no-score", "--work", str(tmp_path / "work2"), "--port", port)


@pytest.mark.parametrize(
    ("studies_of", "line"),
    [
        ("http://127.0.0.1:9/dicom-web", r"E_DICOMWEB: .* \(http://127.0.0.1:9/dicom-web\)"),
        ("nowhere", r"E_NOT_FOUND: no such folder \(nowhere\)"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(serve, tmp_path, studies_of, line):
    with pytest.raises(AssertionError, match=rf"^{line}"):
        serve(studies_of, cwd=tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
