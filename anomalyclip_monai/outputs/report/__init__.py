"""What an evaluation leaves for readers: tables, curves, a sheet of cases and one HTML page, all from one ``Report``.

Nothing here measures anything.
"""

from anomalyclip_monai.outputs.report.all_sets import all_sets_table, check_all_sets_folder, write_all_sets
from anomalyclip_monai.outputs.report.cases import CaseView
from anomalyclip_monai.outputs.report.content import Report, read_report
from anomalyclip_monai.outputs.report.write import write_report

__all__ = [
    "CaseView",
    "Report",
    "all_sets_table",
    "check_all_sets_folder",
    "read_report",
    "write_all_sets",
    "write_report",
]
