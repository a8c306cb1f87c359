"""What an evaluation leaves for readers: tables, curves, a sheet of cases and one HTML page, all from one dictionary.

The dictionary is the content of ``report.json``, schema ``anomalyclip-report/1``; nothing here measures anything.
"""

from anomalyclip_monai.outputs.report.all_sets import all_sets_table, write_all_sets
from anomalyclip_monai.outputs.report.cases import CaseView
from anomalyclip_monai.outputs.report.write import write_report

__all__ = ["CaseView", "all_sets_table", "write_all_sets", "write_report"]
