"""A DICOMweb server, ``anomalyclip serve`` on it, and a reader: all in a network of their own.

    python tests/data/label_orthanc.py FOLDER

``FOLDER/dicom`` is stored in Orthanc; what the reader gets is written to FOLDER, what else is answered to
``answers.json``. Orthanc answers at every address of the machine, whatever its configuration says: run this where there
is none but its own, ``unshare -n``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from label_server import Server, until

STORE = "http://127.0.0.1:8042/dicom-web"

ORTHANC = {
    "Plugins": ["/usr/share/orthanc/plugins"],
    "DicomServerEnabled": False,
    "AuthenticationEnabled": False,
    "RemoteAccessAllowed": False,
    "HttpPort": 8042,
    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
}


def main(folder: Path) -> None:
    """Store, serve, read."""
    (folder / "orthanc.json").write_text(json.dumps(ORTHANC | {"StorageDirectory": str(folder / "store")}))
    store = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stderr=subprocess.DEVNULL)
    try:
        client = until(_answering)
        for file in sorted((folder / "dicom").rglob("*.dcm")):
            client.store_instances([pydicom.dcmread(file)])
        (folder / "server").mkdir()
        server = Server(["--fast", "--port", "0", STORE, "--work", str(folder / "work")], folder / "server")
        try:
            answers = read(server.address, folder)
        finally:
            answers_end = server.end()
        answers |= {"end": answers_end, "left": [path.name for path in server.temporary.iterdir()]}
        answers["printed"] = server.printed
        (folder / "answers.json").write_text(json.dumps(answers))
    finally:
        store.terminate()
        store.wait(timeout=30)


def _answering() -> DICOMwebClient | None:
    try:
        client = DICOMwebClient(STORE)
        client.search_for_series()
    except requests.ConnectionError:
        time.sleep(0.5)
        return None
    return client


def read(address: str, folder: Path) -> dict[str, Any]:
    """What a reader asks for, beginning with the mask of a series that nobody has fetched yet."""
    series = {path.name: pydicom.dcmread(next(path.glob("*.dcm"))).SeriesInstanceUID for path in folder.glob("dicom/*")}

    def infer(model: str, image: str, output: str, **params: Any) -> requests.Response:
        where, sent = {"image": image, "output": output}, {"params": json.dumps({"threshold": "0.3", **params})}
        return requests.post(f"{address}/infer/{model}", params=where, data=sent, timeout=120)

    def keep(name: str, answer: requests.Response) -> None:
        assert answer.ok, answer.text
        (folder / name).write_bytes(answer.content)

    keep("mask.nii.gz", infer("anomaly", series["ct"], "image"))
    answers: dict[str, Any] = {"params": infer("anomaly", series["ct"], "json").json()}
    keep("heatmap.nii.gz", infer("anomaly_heatmap", series["ct"], "image"))
    keep("bands.nii.gz", infer("anomaly_bands", series["ct"], "image"))
    keep("mask.dcm", infer("anomaly", series["ct"], "dicom_seg"))
    keep("bands.dcm", infer("anomaly_bands", series["ct"], "dicom_seg"))
    keep("image.nii.gz", requests.get(f"{address}/datastore/image", {"image": series["ct"]}, timeout=60))
    answers["refused"] = {
        image: (answer := infer("anomaly", image, "json")).status_code == 404 and answer.json()["detail"][:11]
        for image in ("", "..", "1.2.3", "/etc")
    }

    def status() -> Any:
        found = requests.get(f"{address}/scoring/", timeout=30).json()
        return found["scored"] == found["images"] and found

    answers["status"] = until(status)
    following = f"{address}/activelearning/most_anomalous"
    answers["first"] = requests.post(following, json={}, timeout=60).json()["id"]
    with open(folder / "mask.nii.gz", "rb") as file:
        where = {"image": series["ct"], "tag": "final"}
        named = {"params": json.dumps({"label_info": [{"name": "marked lesion"}]})}
        saved = requests.put(f"{address}/datastore/label", params=where, data=named, files={"label": file}, timeout=60)
    answers |= {"saved": saved.status_code, "series": series}
    answers["second"] = requests.post(following, json={}, timeout=60).json()["id"]
    answers["info"] = requests.get(f"{address}/info/", timeout=30).json()["datastore"]
    answers["cookie"] = requests.get(f"{address}/ohif/", timeout=30).headers["set-cookie"]
    answers["proxied"] = requests.get(f"{address}/proxy/dicom/qido/studies", timeout=30).status_code
    answers["address"] = address
    return answers


if __name__ == "__main__":
    main(Path(sys.argv[1]))
