"""The memory of reading millions of rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

PATIENTS, ROWS = 2000, 4_500_000  # beyond the million events kept in memory
MOST_BYTES = 590 << 20  # 451 MiB were seen; an object of Python a row would add 36 bytes, 154 MiB
SETTINGS = {
    "source": "tables",
    "stays": {"file": "stays.parquet", "patient": "patient", "start": "start", "label": "died"},
    "events": [{"file": "events.parquet", "patient": "patient", "time": "time",
                "variable": "name", "value": "value", "unit": "unit"}],
}  # fmt: skip  # one table after the other
READ = f"""
import sys
from pathlib import Path
from consilium.client.sources.registry import open_source, read_data_settings
from tests.client.sources.cohort_formats import STUDY

settings = read_data_settings({SETTINGS!r}, where="here", folder=Path(sys.argv[1]))
source = open_source(settings, STUDY)
for _ in source.read_patients(STUDY):
    pass
status = Path("/proc/self/status").read_text()
print(source.report.events, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""


def read(folder: Path, rows: int) -> tuple[int, int]:
    """Write and read a cohort in another process: the events kept, its peak memory in bytes."""
    stream = np.random.default_rng(7)
    minute = pl.Series("time", stream.integers(0, 48 * 60, rows)) * 60_000_000
    pl.DataFrame(
        {
            "patient": stream.integers(0, PATIENTS, rows),
            "time": minute.cast(pl.Datetime("us")),
            "value": np.full(rows, 80.0),
        }
    ).with_columns(name=pl.lit("HR"), unit=pl.lit("/min")).write_parquet(
        folder / "events.parquet", row_group_size=250_000
    )
    pl.DataFrame(
        {
            "patient": np.arange(PATIENTS),
            "start": pl.Series(np.zeros(PATIENTS, dtype=np.int64)).cast(pl.Datetime("us")),
            "died": np.arange(PATIENTS) % 2,
        }
    ).write_parquet(folder / "stays.parquet")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)],
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    events, peak = map(int, done.stdout.split())
    return events, peak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_millions_of_rows_leave_no_room_for_an_object_each(tmp_path: Path) -> None:
    events, peak = read(tmp_path, ROWS)
    assert events > ROWS // 2
    assert peak < MOST_BYTES
