"""Miniatures of public data sets in the layout in which they are downloaded; ids, images and labels are invented.

Folder, file and column names are those of the sets' documentation. ``MINIATURES[name](root)`` writes one below ``root``
and says what must come out.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """What is right for a miniature.

    data: what a user gives, relative to the root; the first is the folder. preset: the name, "none" if none is
    needed. options: what only the user can decide. images: by split, or the total where all splits are drawn.
    groups: how many; None = not known. left_out: rows and images that a rule leaves out. counts: images by class.
    """

    data: tuple[str, ...]
    preset: str
    images: Mapping[str, int] | int
    classes: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    groups: int | None = None
    left_out: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


Row = Mapping[str, object]
MINIATURES: dict[str, Callable[[Path], Miniature]] = {}


def miniature(build: Callable[[Path], Miniature]) -> Callable[[Path], Miniature]:
    MINIATURES[build.__name__] = build
    return build


def invented(*parts: object, length: int = 32) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:length]


def pixels(name: str, kind: int, color: bool = False) -> np.ndarray:
    """uint8 [SIZE, SIZE] or [SIZE, SIZE, 3]: noise of its own for each name, whose brightness depends on the kind."""
    rng = np.random.default_rng(int(invented(name, length=8), 16))
    noise = rng.normal(50 + 30 * (kind % 5), 18, (SIZE, SIZE, 3) if color else (SIZE, SIZE))
    return np.clip(noise, 0, 255).astype(np.uint8)


def image(file: Path, kind: int, color: bool = False, bits: int = 8) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = pixels(file.as_posix(), kind, color)
    Image.fromarray(values.astype(np.uint16) * 257 if bits == 16 else values).save(file)


def dicom(file: Path, kind: int) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = f"2.25.{int(invented(file.name, length=12), 16)}"
    one = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.Rows = one.Columns = SIZE
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelData = (pixels(file.as_posix(), kind).astype(np.uint16) * 16).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(file, enforce_file_format=True)


def table(file: Path, rows: Iterable[Row]) -> None:
    """A table with the keys of the first row as its header; packed if the name ends in .gz."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)


MIMIC_FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *("Lung Opacity", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"),
)


@miniature
def mimic_cxr_jpg(root: Path) -> Miniature:
    """24 patients, every second of them with a second study; the first study has a lateral image, too."""
    base = root / "physionet.org" / "files" / "mimic-cxr-jpg" / "2.0.0"
    studies, splits, metadata = [], [], []
    edema = 0
    for patient in range(24):
        split = "train" if patient < 16 else "validate" if patient < 20 else "test"
        for number in range(1 + patient % 2):
            ids = {"subject_id": 10_900_000 + patient, "study_id": 59_900_000 + 10 * patient + number}
            kinds = itertools.cycle(("1.0", "0.0", "", "-1.0"))
            cells = dict(zip(MIMIC_FINDINGS, itertools.islice(kinds, len(studies) % 4, None), strict=False))
            studies.append({**ids, **cells, "No Finding": "1.0" if patient % 3 == 0 else ""})
            edema += cells["Edema"] == "1.0"
            for view in ["PA", "LATERAL"] if number == 0 else ["AP"]:
                name = "-".join(invented("mimic", ids, view, at, length=8) for at in range(5))
                folder = f"p{str(ids['subject_id'])[:2]}/p{ids['subject_id']}/s{ids['study_id']}"
                image(base / "files" / folder / f"{name}.jpg", patient % 2)
                splits.append(
                    {"dicom_id": name, "study_id": ids["study_id"], "subject_id": ids["subject_id"], "split": split}
                )
                more = {
                    "PerformedProcedureStepDescription": "CHEST",
                    "ViewPosition": view,
                    "Rows": SIZE,
                    "Columns": SIZE,
                }
                metadata.append({"dicom_id": name, **ids, **more})
    for what, rows in (("chexpert", studies), ("split", splits), ("metadata", metadata)):
        table(base / f"mimic-cxr-2.0.0-{what}.csv.gz", rows)
    (base / "IMAGE_FILENAMES").write_text("files/...\n")
    return Miniature(
        data=(".", base.relative_to(root).as_posix(), f"{base.relative_to(root)}/mimic-cxr-2.0.0-chexpert.csv.gz"),
        preset="mimic_cxr_jpg",
        options={"uncertain_label": "0"},
        images={"train": 24, "val": 6, "test": 6},
        classes=MIMIC_FINDINGS,
        counts={"Edema": edema},
        groups=24,
        left_out=24,
    )


@miniature
def chexpert_batches(root: Path) -> Miniature:
    """As Stanford AIMI hands it out: the tables in the first batch, the training images in the others."""
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    asked = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    for split, patients in (("train", range(1, 31)), ("valid", range(64_541, 64_553))):
        rows = []
        for patient in patients:
            name = f"patient{patient:05d}/study1/view1_frontal.jpg"
            cells = {"No Finding": "", **{one: ["1.0", "0.0"][(patient + at) % 3 == 0] for at, one in enumerate(asked)}}
            if split == "train":
                cells["Edema" if patient % 2 else "Atelectasis"] = ["-1.0", ""][patient % 5 == 0]
            about = {"Sex": ["Male", "Female"][patient % 2], "Age": 50, "Frontal/Lateral": "Frontal", "AP/PA": "AP"}
            rows.append({"Path": f"CheXpert-v1.0/{split}/{name}", **about, **cells})
            batch = f"CheXpert-v1.0 batch {2 + patient % 3} (train {1 + patient % 3})"
            image(root / batch / name if split == "train" else first / "valid" / name, patient % 2)
        table(first / f"{split}.csv", rows)
    return Miniature(
        data=(".", f"{first.name}/train.csv"),
        preset="chexpert_batches",
        options={"uncertain_label": "missing"},
        images={"train": 30, "val": 12},
        classes=asked,
        groups=42,
    )


@miniature
def cohen_covid(root: Path) -> Miniature:
    base = root / "covid-chestxray-dataset-master"
    findings = ["Pneumonia/Viral/COVID-19", "Pneumonia/Bacterial/Streptococcus", "No Finding", "Pneumonia"]
    rows = []

    def add(patient: object, finding: str, view: str = "PA", modality: str = "X-ray", folder: str = "images") -> None:
        name = f"{invented('cohen', len(rows), length=12)}.{['jpg', 'png'][len(rows) % 2]}"
        about = {"patientid": patient, "offset": "0", "sex": "F", "age": "50", "finding": finding, "survival": ""}
        place = {"view": view, "modality": modality, "date": "2020", "folder": folder, "filename": name}
        rows.append({**about, **place, "clinical notes": "invented, with a comma", "": ""})
        if folder == "images":
            image(base / folder / name, len(finding))

    for patient in range(40):
        for view in ["PA", "AP Supine"] if patient % 4 < 2 else ["AP"]:
            add(patient, findings[patient % 4], view)
    for patient in range(40, 44):
        add(patient, "Pneumonia/Viral/COVID-19", "Axial", "CT", "volumes" if patient % 2 else "images")
        add(patient, "Pneumonia/Viral/COVID-19", "L")
        add(patient, "todo")
        add(patient, "Unknown")
        add(f"{patient}a", "Tuberculosis", "AP Erect")  # a label of four images only
    table(base / "metadata.csv", rows)
    mask = base / "annotations" / "lungVAE-masks"
    for row in rows[:4]:
        image(mask / f"{str(row['filename'])[:-4]}_mask.png", 0)
    return Miniature(
        data=(".", base.name, f"{base.name}/metadata.csv"),
        preset="cohen_covid",
        images=40 + 20 + 4,
        classes=("Bacterial", "COVID-19", "Pneumonia", "Streptococcus", "Viral"),
        counts={"COVID-19": 20, "Viral": 20, "Bacterial": 20, "Streptococcus": 20, "Pneumonia": 50},
        groups=44,
        left_out=16,
    )


@miniature
def padchest(root: Path) -> Miniature:
    labels = [
        "['normal']",
        "['cardiomegaly', 'pleural effusion']",
        "['pleural effusion']",
        "['normal', 'cardiomegaly']",
    ]
    rows = []
    for number in range(60):
        patient = number // 2
        cell, projection = labels[patient % 4], ["PA", "AP_horizontal"][number % 2]
        if number >= 50:
            cell, projection = ["['unchanged']", "", "['cardiomegaly']"][number % 3], ["PA", "L"][number % 3 == 2]
        name = f"{invented('padchest', number, length=20)}_{number:02d}-000-000.png"
        image(root / f"{number % 3}" / name, patient % 4, bits=16)
        about = {"": number, "ImageID": name, "ImageDir": number % 3, "StudyID": patient, "PatientID": f"p{patient}"}
        more = {"PatientSex_DICOM": "MF"[patient % 2], "Projection": projection, "MethodLabel": "RNN_model"}
        rows.append({**about, **more, "Labels": cell, "Localizations": "['loc right']"})
    file = root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    table(file, rows)
    return Miniature(
        data=(".", file.name),
        preset="padchest",
        images=50 + 3,  # of the last ten, three are blank and four lateral
        classes=("cardiomegaly", "pleural effusion"),
        groups=28,
        left_out=7,
    )


@miniature
def vindr_cxr_physionet(root: Path) -> Miniature:
    base = root / "physionet.org" / "files" / "vindr-cxr" / "1.0.0"
    findings = ["Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture"]
    findings += ["Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity"]
    findings += ["Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion"]
    findings += ["Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD"]
    findings += ["Lung tumor", "Pneumonia", "Tuberculosis"]
    frequent = ["Cardiomegaly", "Nodule/Mass", "Pneumonia"]
    for split, count, readers, other in (("train", 30, 3, "Other diseases"), ("test", 12, 1, "Other disease")):
        rows = []
        for number in range(count):
            name = invented("vindr", split, number)
            dicom(base / split / f"{name}.dicom", number % 3)
            for reader in range(readers):
                seen = {frequent[number % 3]} if reader == number % readers else set()  # one of three sees it
                seen |= {"Edema"} if split == "train" and number == 0 else set()
                cells = {one: int(one in seen) for one in [*findings, other]}
                who = {"image_id": name, "rad_id": f"R{reader + 1}"} if split == "train" else {"image_id": name}
                rows.append({**who, **cells, "No finding": int(not seen)})
        table(base / "annotations" / f"image_labels_{split}.csv", rows)
        table(base / "annotations" / f"annotations_{split}.csv", [{"image_id": "", "class_name": ""}])
    return Miniature(
        data=(".", base.relative_to(root).as_posix(), f"{base.relative_to(root)}/annotations/image_labels_train.csv"),
        preset="vindr_cxr_physionet",
        images={"train": 30, "test": 12},
        classes=tuple(frequent),
        counts={"Cardiomegaly": 14, "Nodule/Mass": 14, "Pneumonia": 14},
    )


@miniature
def isic_2019(root: Path) -> Miniature:
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    rows, metadata, lesions = [], [], set()
    for number in range(128):
        name = f"ISIC_{number:07d}{'_downsampled' if number % 5 == 0 else ''}"
        kind = number // 2 % 8
        image(root / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input" / f"{name}.jpg", kind, color=True)
        rows.append({"image": name, **{one: f"{float(at == kind)}" for at, one in enumerate(classes)}})
        lesion = "" if number >= 124 else f"BCN_{number // 2:07d}"  # two images of each; of the last it is not known
        lesions.add(lesion or name)
        about = {"age_approx": "55.0", "anatom_site_general": "anterior torso", "lesion_id": lesion, "sex": "female"}
        metadata.append({"image": name, **about})
    table(root / "ISIC_2019_Training_GroundTruth.csv", rows)
    table(root / "ISIC_2019_Training_Metadata.csv", reversed(metadata))
    return Miniature(
        data=(".", "ISIC_2019_Training_GroundTruth.csv"),
        preset="isic_2019",
        images=128,
        classes=tuple(sorted(classes[:8])),
        counts=dict.fromkeys(classes[:8], 16),
        groups=len(lesions),
    )


@miniature
def kermany_oct(root: Path) -> Miniature:
    for split, count, first in (("train", 16, 10_000), ("val", 4, 20_000), ("test", 8, 30_000)):
        for kind, name in enumerate(("CNV", "DME", "DRUSEN", "NORMAL")):
            for number in range(count):
                file = f"{name}-{first + number // 2}-{number % 2 + 1}.jpeg"
                image(root / "OCT2017 " / split / name / file, kind)
    return Miniature(
        data=(".", "OCT2017 "),
        preset="kermany_oct",
        images={"train": 64, "val": 16, "test": 32},
        classes=("CNV", "DME", "DRUSEN", "NORMAL"),
        groups=56,
    )


@miniature
def kermany_chest_xray(root: Path) -> Miniature:
    """The third version: no val, and other names."""
    base = root / "CellData" / "chest_xray"
    for split, count in (("train", 24), ("test", 8)):
        for number in range(count):
            patient = {"train": 1_000_000, "test": 2_000_000}[split] + number // 2
            kind = ["BACTERIA", "VIRUS"][number // 2 % 2]
            image(base / split / "NORMAL" / f"NORMAL-{patient}-{number % 2 + 1:04d}.jpeg", 0)
            image(base / split / "PNEUMONIA" / f"{kind}-{patient}-{number % 2 + 1:04d}.jpeg", 3)
    return Miniature(
        data=(".", "CellData/chest_xray"),
        preset="kermany_chest_xray",
        images={"train": 48, "test": 16},
        classes=("NORMAL", "PNEUMONIA"),
        groups=32,
    )


def npz(file: Path, classes: int, several: bool = False, color: bool = False) -> None:
    """A file in MedMNIST's form: uint8 images [n, H, W] or [n, H, W, 3], labels uint8 [n, 1] or [n, classes]."""
    arrays = {}
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        kinds = np.arange(count * classes) % classes
        arrays[f"{split}_images"] = np.stack([pixels(f"{split}{at}", kind, color) for at, kind in enumerate(kinds)])
        hot = np.eye(classes, dtype=np.uint8)[kinds]
        arrays[f"{split}_labels"] = hot | np.roll(hot, 1, axis=1) if several else kinds[:, None].astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


@miniature
def medmnist_pneumonia(root: Path) -> Miniature:
    npz(root / "pneumoniamnist_64.npz", 2)
    return Miniature(
        data=(".", "pneumoniamnist_64.npz"),
        preset="medmnist_pneumonia",
        images={"train": 16, "val": 6, "test": 8},
        classes=("normal", "pneumonia"),
        counts={"normal": 15, "pneumonia": 15},
    )


@miniature
def medmnist_chest(root: Path) -> Miniature:
    npz(root / "chestmnist.npz", 14, several=True)
    names = ("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax")
    names += ("consolidation", "edema", "emphysema", "fibrosis", "pleural thickening", "hernia")
    return Miniature(
        data=(".", "chestmnist.npz"),
        preset="medmnist_chest",
        images={"train": 112, "val": 42, "test": 56},
        classes=names,
        counts=dict.fromkeys(names, 30),
    )


@miniature
def medmnist_retina(root: Path) -> Miniature:
    npz(root / "retinamnist.npz", 5, color=True)
    return Miniature(
        data=(".", "retinamnist.npz"),
        preset="medmnist_retina",
        images={"train": 40, "val": 15, "test": 20},
        classes=("0", "1", "2", "3", "4"),
        counts=dict.fromkeys("01234", 15),
    )


def labelled(count: int) -> list[dict[str, str]]:
    return [{"file_name": f"{at:04d}.png", "label": ["cat", "dog"][at % 2], "note": f"no {at}"} for at in range(count)]


def hugging_face(folder: Path, rows: Sequence[Row]) -> None:
    for row in rows:
        image(folder / str(row["file_name"]), len(str(row["label"])), color=True)


@miniature
def hf_imagefolder(root: Path) -> Miniature:
    """A table in each split's folder, with the same file names in each."""
    splits = {"data/train": labelled(24), "data/validation": labelled(8), "data/test": labelled(10)}
    for folder, rows in splits.items():
        hugging_face(root / folder, rows)
        (root / folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (root / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    return Miniature(
        data=(".", "data", "data/train/metadata.jsonl"),
        preset="hf_imagefolder",
        images={"train": 24, "val": 8, "test": 10},
        classes=("cat", "dog"),
        counts={"cat": 21, "dog": 21},
    )


@miniature
def hf_imagefolder_flat(root: Path) -> Miniature:
    hugging_face(root, labelled(40))
    table(root / "metadata.csv", labelled(40))
    return Miniature(
        data=(".", "metadata.csv"),
        preset="hf_imagefolder_flat",
        images=40,
        classes=("cat", "dog"),
        counts={"cat": 20, "dog": 20},
    )


@miniature
def hf_class_folders(root: Path) -> Miniature:
    """Plain split folders need no preset."""
    for (split, count), name in itertools.product({"train": 12, "validation": 4, "test": 5}.items(), ("cat", "dog")):
        for number in range(count):
            image(root / "data" / split / name / f"{number:03d}.jpg", len(name) + (name == "dog"), color=True)
    return Miniature(
        data=(".", "data"),
        preset="none",
        images={"train": 24, "val": 8, "test": 10},
        classes=("cat", "dog"),
        counts={"cat": 21, "dog": 21},
    )
