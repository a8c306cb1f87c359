"""How each data set lies on disk: one table, a row a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from anomalyclip_monai.data.masks import MaskRule
from anomalyclip_monai.data.photo import SUFFIXES

PHOTO = rf"\.(?:{'|'.join(suffix.removeprefix('.') for suffix in SUFFIXES)})"
VOLUME = r"\.nii(?:\.gz)?"

DEEPER = 2
"""Levels below the given folder at which a data set is found."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Images told by where they lie.

    The patterns are regular expressions for a path below the set's folder, upper and lower case alike. A file that
    fits ``mask`` is a mask, else if it fits ``image`` an image. A mask belongs to the image with the same text in all
    named groups that both patterns have. Names with a meaning: ``kind`` (folder of the label), ``split``,
    ``category``, ``group``.

    Attributes:
        image: pattern of images.
        mask: pattern of masks, empty where the set has none.
        label: how the label is known: from the folder, from there being a mask file, from the mask's content, or all
            images are the same.
        normal: names of ``kind``, in lower case, that mean normal.
        needs_normal: a folder without a normal image is not this set; for patterns that fit much else.
        mask_rule: which values are lesion; ``dataset.json``: the labels that this file calls so.
        masks_optional: labels alone will do if the set has no mask at all.
    """

    image: str
    mask: str = ""
    label: Literal["kind", "mask file", "mask", "normal", "abnormal"] = "kind"
    normal: tuple[str, ...] = ("good",)
    needs_normal: bool = True
    mask_rule: MaskRule | Literal["dataset.json"] = "auto"
    masks_optional: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Images told by a CSV file; columns that a file lacks are left out, ``image`` must be there.

    Attributes:
        file: path below the set's folder; empty: the user names the file.
        image: column of the image, a path below the file's folder.
        by_number: ``image`` is a number instead, that of the file with this stem however padded with zeros.
        label: column of the label: 0 or 1, or a word.
        normal: words that mean normal, in lower case.
        abnormal: words that mean abnormal.
        mask: column of the mask; several are separated by ``|``.
        category: column of the class of object.
        group: column of the patient or sequence.
        split: column of the split.
        mask_rule: which values of a mask are lesion.
    """

    file: str
    image: str = "image"
    by_number: bool = False
    label: str = "label"
    normal: tuple[str, ...] = ("0", "0.0", "false", "normal", "good", "ok", "no")
    abnormal: tuple[str, ...] = ("1", "1.0", "true", "abnormal", "anomaly", "anomalous", "bad", "ko", "yes")
    mask: str = "mask"
    category: str = "category"
    group: str = "group"
    split: str = "split"
    mask_rule: MaskRule = "auto"


@dataclass(frozen=True, slots=True)
class Layout:
    """A data set.

    Attributes:
        title: its name in tables.
        tree: what its folder looks like, for people.
        ways: how images are found, the first that fits.
        preset: intensity preset of its images.
        source: who made it, and where it is published.
        folder: regular expression for the names of folders that :func:`find_all` takes for it, in lower case without
            anything but letters and digits; empty: never.
        sizes: normal and abnormal images of the published test set, None where that is unknown or open.
        patients: patients of the published set, where it counts patients rather than images.
        sequences: first and last frame number of sequences that are known.
        block: frames of other numbers are grouped in blocks of so many, the mean length of the set's sequences.
        many_sets: its classes are sets of their own, of different organs: intervals over them too, and a mean over
            those whose organ was not trained.
    """

    title: str
    tree: tuple[str, ...]
    ways: tuple[Tree | Table, ...]
    preset: str
    source: str
    folder: str = ""
    sizes: tuple[int, int] | None = None
    patients: int | None = None
    sequences: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    block: int = 0
    many_sets: bool = False


def _kinds(names: str, *normal: str) -> Tree:
    return Tree(rf"(?P<kind>{names})/(?P<stem>[^/]+){PHOTO}", normal=normal)


def _pairs(images: str, masks: str) -> Tree:
    """Abnormal images and their masks in two folders, under the same names; masks may be JPEG or soft."""
    stem = rf"(?P<stem>[^/]+){PHOTO}"
    return Tree(f"(?:{images})/{stem}", f"(?:{masks})/{stem}", label="abnormal", mask_rule="half")


def _mvtec(*normal: str) -> Tree:
    place = r"(?:(?P<category>[^/]+)/)?{}/(?P<kind>[^/]+)/(?P<stem>[^/]+?){}"
    return Tree(
        place.format("(?P<split>train|test)", PHOTO), place.format("ground_truth", "(?:_mask)?" + PHOTO), normal=normal
    )


_MVTEC = _mvtec("good")
_MVTEC_TREE = ("CLASS/test/good/000.png", "CLASS/test/DEFECT/000.png", "CLASS/ground_truth/DEFECT/000_mask.png")

# Slices are named PATIENT_SLICE, the files of OCT2017 KIND-PATIENT-NUMBER.
_BMAD_STEM = r"(?P<stem>(?:(?:[a-z]+-)?(?P<group>\d+)[_-])?[^/]+)" + PHOTO
_BMAD_PLACE = r"(?P<split>train|valid|test)/(?P<kind>good|Ungood)/"
_BMAD = Tree(_BMAD_PLACE + "(?:img/)?" + _BMAD_STEM)
_BMAD_MASKS = Tree(_BMAD_PLACE + "img/" + _BMAD_STEM, _BMAD_PLACE + "(?:label|anomaly_mask)/" + _BMAD_STEM)
_BMAD_TREE = ("test/good/1000.png", "test/Ungood/1000.png")
_BMAD_MASKS_TREE = ("test/good/img/00003_60.png", "test/Ungood/img/00124_60.png", "test/Ungood/label/00124_60.png")
_BMAD_SOURCE = "Bao et al., BMAD, CVPR Workshops 2024, github.com/DorisBao/BMAD"

# fmt: off
_CLINICDB_SEQUENCES = (
    (1, 25), (26, 50), (51, 67), (68, 78), (79, 103), (104, 126), (127, 151), (152, 177), (178, 199), (200, 205),
    (206, 227), (228, 252), (253, 277), (278, 297), (298, 317), (318, 342), (343, 363), (364, 383), (384, 408),
    (409, 428), (429, 447), (448, 466), (467, 478), (479, 503), (504, 528), (529, 546), (547, 571), (572, 591),
    (592, 612),
)
# fmt: on

LAYOUTS: Mapping[str, Layout] = {
    "headct": Layout(
        "HeadCT",
        ("good/*.png and hemorrhage/*.png", "or *.png and labels.csv with the columns id, hemorrhage"),
        (_kinds("[^/]+", "good"), Table("labels.csv", image="id", by_number=True, label="hemorrhage")),
        "ct_head",
        "Kitamura, Head CT - hemorrhage, kaggle.com/datasets/felipekitamura/head-ct-hemorrhage",
        folder="headct.*",
        sizes=(100, 100),
    ),
    "brainmri": Layout(
        "BrainMRI",
        ("no/*.jpg", "yes/*.jpg"),
        (_kinds("no|yes", "no"),),
        "mr_brain",
        "Chakrabarty, Brain MRI images for brain tumor detection, "
        "kaggle.com/datasets/navoneel/brain-mri-images-for-brain-tumor-detection",
        folder="brainmri.*|braintumordataset",
        sizes=(98, 155),
    ),
    "br35h": Layout(
        "Br35H",
        ("no/*.jpg", "yes/*.jpg"),
        (_kinds("no|yes", "no"),),
        "mr_brain",
        "Hamada, Br35H: brain tumor detection 2020, kaggle.com/datasets/ahmedhamada0/brain-tumor-detection",
        folder="br35h.*",
        sizes=(1500, 1500),
    ),
    "covid19": Layout(
        "COVID-19",
        ("NORMAL/*.png", "COVID/*.png (any other name is abnormal)", "or NORMAL/images/*.png and COVID/images/*.png"),
        (Tree(rf"(?P<kind>(?!masks?/|images?/)[^/]+)/(?:images/)?(?P<stem>[^/]+){PHOTO}", normal=("normal",)),),
        "xray_chest",
        "Chowdhury et al. 2020 (doi 10.1109/ACCESS.2020.3010287) and Rahman et al. 2021, COVID-19 Radiography "
        "Database, kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        folder="covid.*",
    ),
    "isic": Layout(
        "ISIC",
        ("images/NAME.jpg", "masks/NAME.png or NAME_Segmentation.png"),
        (
            Tree(
                rf"(?:images?/|[^/]*_Data/|)(?P<stem>[^/]+){PHOTO}",
                rf"(?:masks?/|[^/]*_GroundTruth/|(?=[^/]*_Segmentation\.))(?P<stem>[^/]+?)(?:_Segmentation)?{PHOTO}",
                label="abnormal",
                mask_rule="half",
            ),
        ),
        "skin",
        "Gutman et al. 2016, ISBI 2016 skin lesion challenge, part 1, test set (arXiv 1605.01397), "
        "challenge.isic-archive.com/data",
        folder="isic.*|isbi.*",
        sizes=(0, 379),
    ),
    "colondb": Layout(
        "CVC-ColonDB",
        ("images/1.png", "masks/1.png"),
        (_pairs("images?", "masks?"),),
        "colonoscopy",
        "Tajbakhsh et al. 2016, doi 10.1109/TMI.2015.2487997; Bernal et al. 2012, doi 10.1016/j.patcog.2012.03.002",
        folder="(?:cvc)?colondb.*",
        sizes=(0, 380),
        sequences=((1, 38), (39, 60)),
        block=25,
    ),
    "clinicdb": Layout(
        "CVC-ClinicDB",
        ("Original/1.tif", "Ground Truth/1.tif", "or images/1.png and masks/1.png"),
        (_pairs("Original|images?", "Ground.?Truth|masks?"),),
        "colonoscopy",
        "Bernal et al. 2015, doi 10.1016/j.compmedimag.2015.02.007, polyp.grand-challenge.org/CVCClinicDB",
        folder="(?:cvc)?clinicdb.*|cvc612",
        sizes=(0, 612),
        sequences=_CLINICDB_SEQUENCES,
        block=21,
    ),
    "kvasir": Layout(
        "Kvasir-SEG",
        ("images/NAME.jpg", "masks/NAME.jpg"),
        (_pairs("images?", "masks?"),),
        "colonoscopy",
        "Jha et al. 2020, doi 10.1007/978-3-030-37734-2_37, datasets.simula.no/kvasir-seg",
        folder="kvasir.*",
        sizes=(0, 1000),
    ),
    "endo": Layout(
        "Endo",
        ("images/NAME.jpg", "masks/NAME.jpg"),
        (_pairs("images?", "masks?"),),
        "colonoscopy",
        "Hicks et al., EndoTect 2020, doi 10.1007/978-3-030-68793-9_18, endotect.com",
        folder="endo(?:tect.*)?",
        sizes=(0, 200),
    ),
    "tn3k": Layout(
        "TN3K",
        ("test-image/0000.jpg", "test-mask/0000.jpg"),
        (
            Tree(
                rf"(?P<split>test|trainval)-image/(?P<stem>[^/]+){PHOTO}",
                rf"(?P<split>test|trainval)-mask/(?P<stem>[^/]+){PHOTO}",
                label="abnormal",
                mask_rule="half",
            ),
        ),
        "ultrasound",
        "Gong et al. 2021, doi 10.1109/ISBI48211.2021.9434087, github.com/haifangong/TRFE-Net-for-thyroid-nodule-"
        "segmentation",
        folder="tn3k|thyroid.*",
        sizes=(0, 614),
    ),
    "mvtec": Layout(
        "MVTec AD",
        _MVTEC_TREE,
        (_MVTEC,),
        "photo",
        "Bergmann et al. 2021, doi 10.1007/s11263-020-01400-4, mvtec.com/company/research/datasets/mvtec-ad",
        folder="mvtec.*",
        sizes=(467, 1258),
    ),
    "visa": Layout(
        "VisA",
        (
            "split_csv/1cls.csv with the columns object, split, label, image, mask",
            "CLASS/Data/Images/{Normal,Anomaly}/*.JPG",
            "CLASS/Data/Masks/Anomaly/*.png",
            "or MVTec AD's tree",
        ),
        (Table("split_csv/1cls.csv", category="object"), _MVTEC),
        "photo",
        "Zou et al. 2022, doi 10.1007/978-3-031-20056-4_23, github.com/amazon-science/spot-diff",
        folder="visa.*",
        sizes=(962, 1200),
    ),
    "mpdd": Layout(
        "MPDD",
        _MVTEC_TREE,
        (_MVTEC,),
        "photo",
        "Jezek et al. 2021, doi 10.1109/ICUMT54235.2021.9631567, github.com/stepanje/MPDD",
        folder="mpdd.*",
        sizes=(176, 282),
    ),
    "btad": Layout(
        "BTAD",
        ("CLASS/test/ok/*.bmp", "CLASS/test/ko/*.bmp", "CLASS/ground_truth/ko/*.png"),
        (_mvtec("ok", "good"),),
        "photo",
        "Mishra et al. 2021, doi 10.1109/ISIE45552.2021.9576231, avires.dimi.uniud.it/papers/btad/btad.zip",
        folder="btad.*|btechdataset.*",
        sizes=(451, 290),
    ),
    "sdd": Layout(
        "SDD",
        ("kos01/Part0.jpg", "kos01/Part0_label.bmp (normal where it is empty)", "or MVTec AD's tree"),
        (
            Tree(
                rf"(?P<group>kos\d+)/(?P<stem>Part\d+){PHOTO}",
                rf"(?P<group>kos\d+)/(?P<stem>Part\d+)_label{PHOTO}",
                label="mask",
            ),
            _MVTEC,
        ),
        "photo",
        "Tabernik et al. 2019, KolektorSDD, doi 10.1007/s10845-019-01476-x, vicos.si/resources/kolektorsdd",
        folder="sdd|kolektorsdd|ksdd",
    ),
    "dagm": Layout(
        "DAGM",
        ("Class1/Test/0001.PNG", "Class1/Test/Label/0002_label.PNG (only for defects)", "or MVTec AD's tree"),
        (
            Tree(
                rf"(?:(?P<category>Class\d+)/(?:(?P=category)/)?)(?P<split>Train|Test)/(?P<stem>\d+){PHOTO}",
                rf"(?:(?P<category>Class\d+)/(?:(?P=category)/)?)(?P<split>Train|Test)/Label/(?P<stem>\d+)_label{PHOTO}",
                label="mask file",
            ),
            _MVTEC,
        ),
        "photo",
        "Wieler and Hahn 2007, Weakly supervised learning for industrial optical inspection, "
        "hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection",
        folder="dagm.*",
        sizes=(6996, 1054),
    ),
    "dtd": Layout(
        "DTD-Synthetic",
        _MVTEC_TREE,
        (_MVTEC,),
        "photo",
        "Aota et al. 2023, doi 10.1109/WACV56688.2023.00552",
        folder="dtd.*",
        sizes=(357, 947),
    ),
    "bmad_brain": Layout(
        "BMAD Brain",
        _BMAD_MASKS_TREE,
        (_BMAD_MASKS,),
        "mr_brain",
        _BMAD_SOURCE,
        folder="(?:bmad)?brain(?:ad)?",
        sizes=(640, 3075),
    ),
    "bmad_liver": Layout(
        "BMAD Liver",
        _BMAD_MASKS_TREE,
        (_BMAD_MASKS,),
        "ct_abdomen",
        _BMAD_SOURCE,
        folder="(?:bmad|hist)?liver(?:ad)?",
        sizes=(833, 660),
    ),
    "bmad_resc": Layout(
        "BMAD RESC",
        _BMAD_MASKS_TREE,
        (_BMAD_MASKS,),
        "photo",
        _BMAD_SOURCE,
        folder="(?:bmad|retina)?resc(?:ad)?",
        sizes=(1041, 764),
    ),
    "bmad_oct2017": Layout(
        "BMAD OCT2017",
        _BMAD_TREE,
        (_BMAD,),
        "photo",
        _BMAD_SOURCE,
        folder="(?:bmad|retina)?oct2017(?:ad)?",
        sizes=(242, 726),
    ),
    "bmad_rsna": Layout(
        "BMAD RSNA",
        _BMAD_TREE,
        (_BMAD,),
        "xray_chest",
        _BMAD_SOURCE,
        folder="(?:bmad)?(?:rsna|chest)(?:ad)?",
        sizes=(781, 16413),
    ),
    "bmad_camelyon16": Layout(
        "BMAD Camelyon16",
        _BMAD_TREE,
        (_BMAD,),
        "photo",
        _BMAD_SOURCE,
        folder="(?:bmad)?(?:camelyon(?:16)?|histopathology)(?:ad)?",
    ),
    "busi": Layout(
        "BUSI",
        ("benign/NAME.png", "malignant/NAME.png", "normal/NAME.png", "each with NAME_mask.png, NAME_mask_1.png ..."),
        (
            Tree(
                rf"(?P<kind>benign|malignant|normal)/(?P<stem>[^/]+){PHOTO}",
                rf"(?P<kind>benign|malignant|normal)/(?P<stem>[^/]+?)_mask(?:_\d+)?{PHOTO}",
                normal=("normal",),
            ),
        ),
        "ultrasound",
        "Al-Dhabyani et al. 2020, doi 10.1016/j.dib.2019.104863",
        folder="busi.*|datasetbusi.*",
        sizes=(133, 647),
    ),
    "organs": Layout(
        "Lesions of many organs",
        ("organs.csv with the columns image, mask, label, group, category, split", "and the folders that it names"),
        (Table("organs.csv"),),
        "photo",
        "lesion sets of your own, one category each",
        folder="organs.*",
        many_sets=True,
    ),
    "brats": Layout(
        "BraTS",
        ("CASE/CASE_flair.nii.gz and CASE/CASE_seg.nii.gz", "or CASE/CASE-t2f.nii.gz and CASE/CASE-seg.nii.gz"),
        (
            Tree(
                rf"(?P<group>BraTS[^/]*)/(?P=group)[_-](?:flair|t2f){VOLUME}",
                rf"(?P<group>BraTS[^/]*)/(?P=group)[_-]seg{VOLUME}",
                label="mask",
            ),
        ),
        "mr_brain",
        "Baid et al. 2021, arXiv 2107.02314; Menze et al. 2015, doi 10.1109/TMI.2014.2377694, synapse.org/brats",
        folder="brats.*|miccaibrats.*",
    ),
    "msd": Layout(
        "MSD",
        ("imagesTr/NAME.nii.gz", "labelsTr/NAME.nii.gz", "dataset.json, which names the labels"),
        (
            Tree(
                rf"imagesTr/(?P<stem>[^/]+){VOLUME}",
                rf"labelsTr/(?P<stem>[^/]+){VOLUME}",
                label="mask",
                mask_rule="dataset.json",
            ),
        ),
        "auto",
        "Antonelli et al. 2022, Medical Segmentation Decathlon, doi 10.1038/s41467-022-30695-9, medicaldecathlon.com",
        folder=r"(?:msd)?task\d\d[a-z]+",
    ),
    "atlas": Layout(
        "ATLAS",
        (
            "Training/R001/sub-r001s001/ses-1/anat/*_T1w.nii.gz",
            "Training/R001/sub-r001s001/ses-1/anat/*lesion_mask.nii.gz",
        ),
        (
            Tree(
                rf"(?:Training/)?(?:R\d+/)?(?P<group>sub-[^/]+)/(?P<session>ses-[^/]+)/anat/[^/]*_T1w{VOLUME}",
                rf"(?:Training/)?(?:R\d+/)?(?P<group>sub-[^/]+)/(?P<session>ses-[^/]+)/anat/[^/]*lesion_?mask{VOLUME}",
                label="mask",
            ),
        ),
        "mr_brain",
        "Liew et al. 2022, ATLAS v2.0, doi 10.1038/s41597-022-01401-7",
        folder="atlas.*",
    ),
    "lgg": Layout(
        "TCGA-LGG",
        (
            "TCGA_*/flair.nii.gz and TCGA_*/mask.nii.gz",
            "or TCGA_*/TCGA_*_1.tif and TCGA_*/TCGA_*_1_mask.tif, slice by slice",
        ),
        (
            Tree(rf"(?P<group>TCGA_[^/]+)/flair{VOLUME}", rf"(?P<group>TCGA_[^/]+)/mask{VOLUME}", label="mask"),
            Tree(
                r"(?P<group>TCGA_[^/]+)/(?P<stem>[^/]+)\.tiff?",
                r"(?P<group>TCGA_[^/]+)/(?P<stem>[^/]+)_mask\.tiff?",
                label="mask",
                mask_rule="half",
            ),
        ),
        "mr_brain",
        "Buda et al. 2019, doi 10.1016/j.compbiomed.2019.05.002, kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation",
        folder="(?:tcga)?lgg.*|kaggle3m",
        patients=110,
    ),
    "open_ms": Layout(
        "open_ms",
        ("patient01/flair.nii.gz", "patient01/consensus_gt.nii.gz, gt.nii.gz or lesion_mask.nii.gz"),
        (
            Tree(
                rf"(?P<group>patient\d+)/flair{VOLUME}",
                rf"(?P<group>patient\d+)/(?:lesion_mask|(?:consensus_)?gt){VOLUME}",
                label="mask",
            ),
        ),
        "mr_brain",
        "Lesjak et al. 2018, doi 10.1007/s12021-017-9348-7, github.com/muschellij2/open_ms_data",
        folder="openms.*",
        patients=30,
    ),
    "normal_volumes": Layout(
        "Healthy volumes",
        ("*.nii.gz, all of them normal",),
        (Tree(rf"(?P<stem>.+){VOLUME}", label="normal"),),
        "auto",
        "volumes of your own",
        folder="healthy.*|normalvolumes.*",
    ),
    "folder": Layout(
        "Folder",
        ("normal/NAME.png", "abnormal/NAME.png", "masks/NAME.png for the abnormal ones (or no masks at all)"),
        (
            Tree(
                rf"(?P<kind>normal|abnormal)/(?:(?P<group>[^/]+)/)?(?P<stem>[^/]+?)(?:{PHOTO}|{VOLUME})",
                rf"masks/(?:abnormal/)?(?:(?P<group>[^/]+)/)?(?P<stem>[^/]+?)(?:_mask)?(?:{PHOTO}|{VOLUME})",
                normal=("normal",),
                needs_normal=False,
                masks_optional=True,
            ),
        ),
        "auto",
        "images of your own",
    ),
    "csv": Layout(
        "List",
        ("a CSV file with the columns image, label and mask (one of the two), and if you like group, category, split",),
        (Table(""),),
        "auto",
        "images of your own",
    ),
}
"""Data set -> its layout, in the order of tables."""
