"""The words of a DICOM header that may be shown: those that the standard defines.

Whatever else is typed into Modality or Body Part Examined, a name say, is as good as absent.
"""

from __future__ import annotations

# fmt: off
MODALITIES = frozenset(
    {
        "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "DX", "ECG",
        "EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN",
        "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT",
        "PA", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN",
        "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP",
        "TG", "US", "VA", "XA", "XAPROTOCOL", "XC", "AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS", "EC", "FA",
        "FS", "LP", "MA", "MS", "OPR", "ST", "VF",
    }
)
# fmt: on
"""Modality, PS3.3 C.7.3.1.1.1, with the retired ones (AS to VF) at the end."""

# fmt: off
BODY_PARTS = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "ABDOMINALAORTA", "ACJOINT", "ADRENAL", "AMNIOTICFLUID", "ANKLE", "ANTECUBITALV",
        "ANTCARDIACV", "ANTCOMMA", "ANTSPINALA", "ANTTIBIALA", "ANUS", "ANUSRECTUMSIGMD", "AORTA", "AORTICARCH",
        "APPENDIX", "ARM", "ARTERY", "ASCAORTA", "ATRIUM", "AXILLA", "AXILLARYA", "AXILLARYV", "AZYGOSVEIN", "BACK",
        "BASILARA", "BILEDUCT", "BILIARYTRACT", "BLADDER", "BLADDERURETHRA", "BRACHIALA", "BRACHIALV", "BRAIN",
        "BREAST", "BRONCHUS", "BULB", "BUTTOCK", "CALCANEUS", "CALF", "CALYX", "CAROTID", "CCA", "CEPHALICV",
        "CEREBELLUM", "CEREBHEMISPHERE", "CEREBRALA", "CERVIX", "CFA", "CFV", "CHEEK", "CHEST", "CHESTABDOMEN",
        "CHESTABDPELVIS", "CHOROIDPLEXUS", "CIRCLEOFWILLIS", "CLAVICLE", "COCCYX", "COLON", "COMILIACA", "COMILIACV",
        "COMMONBILEDUCT", "CORNEA", "CORONARYARTERY", "CORONARYSINUS", "CSPINE", "CTSPINE", "DESCAORTA", "DUODENUM",
        "EAC", "EAR", "ECA", "ELBOW", "ENDOVESICAL", "EPIGASTRIC", "ESOPHAGUS", "EXTILIACA", "EXTILIACV", "EXTJUGV",
        "EXTREMITY", "EYE", "EYELID", "FACE", "FACIALA", "FEMORALA", "FEMORALV", "FEMUR", "FETALARM", "FETALDIGIT",
        "FETALHEART", "FETALLEG", "FETALPOLE", "FIBULA", "FINGER", "FLANK", "FONTANELLE", "FOOT", "FOREARM",
        "4THVENTRICLE", "GALLBLADDER", "GLUTEAL", "HAND", "HEAD", "HEADNECK", "HEART", "HEPATICA", "HEPATICV", "HIP",
        "HUMERUS", "HYPOCHONDRIAC", "HYPOGASTRIC", "HYPOPHARYNX", "IAC", "ICA", "ILEUM", "ILIACA", "ILIACV", "ILIUM",
        "INFRAORBITAL", "INGUINAL", "INNOMINATEA", "INNOMINATEV", "INTILIACA", "INTJUGULARV", "INTMAMMARYA", "IVC",
        "JAW", "JEJUNUM", "KIDNEY", "KNEE", "LACRIMALA", "LARYNX", "LATRIUM", "LEG", "LIVER", "LINGUALA", "LSPINE",
        "LSSPINE", "LUMBAR", "LUMBARA", "LUMEN", "LUNG", "LVENTRICLE", "MANDIBLE", "MASTOID", "MAXILLA",
        "MEDIASTINUM", "MESENTRICA", "MESENTRICV", "MOUTH", "NASALBONE", "NASOPHARYNX", "NECK", "NECKCHEST",
        "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "NOSE", "OCCIPTALA", "OCCIPTALV", "OPHTHALMICA", "OPTICCANAL",
        "ORBIT", "OVARY", "PANBILEDUCT", "PANCREAS", "PANCREATICDUCT", "PARASTERNAL", "PARATHYROID", "PAROTID",
        "PATELLA", "PELVIS", "PELVISLOWEXTREMT", "PENILEA", "PENIS", "PERINEUM", "PERONEALA", "PHANTOM", "PHARYNX",
        "PLACENTA", "POPLITEALA", "POPLITEALV", "PORTALV", "PROSTATE", "PULMONARYA", "PULMONARYV", "RADIALA",
        "RADIUS", "RADIUSULNA", "RATRIUM", "RECTUM", "RENALA", "RENALV", "RIB", "RVENTRICLE", "SACRALSPINE",
        "SAPHENOUSV", "SCAPULA", "SCJOINT", "SCLERA", "SCROTUM", "SELLA", "SEMVESICLE", "SESAMOID", "SFJ",
        "SHOULDER", "SIJOINT", "SINUS", "SKULL", "SMA", "SMALLINTESTINE", "SPINALCORD", "SPINE", "SPLEEN",
        "SPLENICA", "SPLENICV", "SSPINE", "STERNUM", "STOMACH", "SUBCLAVIANA", "SUBCLAVIANV", "SUBCOSTAL",
        "SUBMANDIBULAR", "SUPRACLAVICULAR", "SUPRAPUBIC", "SVC", "TARSUS", "TESTIS", "THALAMUS", "THIGH",
        "3RDVENTRICLE", "THORACICAORTA", "THUMB", "THYMUS", "THYROID", "TIBIA", "TIBIAFIBULA", "TLSPINE", "TMJ",
        "TOE", "TONGUE", "TRACHEA", "TRACHEABRONCHUS", "TSPINE", "ULNA", "ULNARA", "UMBILICAL", "UMBILICALA",
        "UMBILICALV", "UPRARM", "UPRLEG", "URETER", "URETHRA", "UTERUS", "VAGINA", "VEIN", "VERTEBRALA", "VULVA",
        "WHOLEBODY", "WRIST", "ZYGOMA",
    }
)
# fmt: on
"""Body Part Examined, PS3.16 annex L, of humans."""

_IN_USE = {
    "CAROTIDS": "CAROTID",
    "CERVICALSPINE": "CSPINE",
    "FACIALBONES": "FACE",
    "HEADANDNECK": "HEADNECK",
    "LOWEREXTREMITY": "LEG",
    "LUMBARSPINE": "LSPINE",
    "PITUITARY": "SELLA",
    "THORACICSPINE": "TSPINE",
    "THORAX": "CHEST",
    "UPPEREXTREMITY": "ARM",
    "WHOLESPINE": "SPINE",
}
"""Words that scanners write in the place of defined ones."""


def defined_modality(text: str) -> str:
    """The modality if the standard defines it, else nothing."""
    return text if text in MODALITIES else ""


def defined_body_part(text: str) -> str:
    """The defined term for a body part in any case, with or without blanks, hyphens and underscores, else nothing.

    >>> defined_body_part("c-spine"), defined_body_part("DOE JOHN")
    ('CSPINE', '')
    """
    word = text.upper().translate({ord(character): None for character in " -_"})
    word = _IN_USE.get(word, word)
    return word if word in BODY_PARTS else ""
