"""``python -m anomalyclip_monai.cli``."""

import sys

from anomalyclip_monai.cli import main

sys.exit(main())
