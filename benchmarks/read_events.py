"""A hospital's events read and turned into tensors, beside the same job hand-written in polars.

    python benchmarks/read_events.py [--events 1000000] [--repeat 3]
    python benchmarks/read_events.py --memory 10000000

The rival is what an engineer would write for this one cohort: lazy scan, joins, a filter, one sort.
It knows the units, trusts the types, and counts nothing. Our code recognises units and words; it
finds and counts duplicates and what lies outside ranges, windows and stays. Both make the same
grid, which is checked, and the same features from it. The ratio is our time / the rival's; the
target is at most 2.

Then the peak memory of a process that reads the patients one by one, for more and more events:
beyond a million they are kept in unnamed temporary files, and only the table of stays grows. With
``--memory`` it is only that, for so many rows, and again with the grid, which has to be in memory
whole; the whole process must stay under 1 GiB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from parts.table import add_row

from consilium.client.records.features import TimeGrid, to_grid, to_tensors
from consilium.client.sources.common.source import Source
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.shared.study.dictionary import KNOWN
from consilium.shared.study.units import SUBSTANCES, conversion

TARGET = 2.0
MOST_MIB = 1024
ROWS_AT_ONCE = 1_000_000  # so many are made at a time
EVENTS_A_STAY = 125
US_PER_HOUR = 3_600_000_000
STUDY: Study = with_changes(
    load_study(Path(__file__).parents[1] / "studies" / "demo.toml"), data={"source": "hospital"}
)
SERIES = [name for name in STUDY.variables if name not in ("Age", "Gender")]
OTHER_UNITS = {"Temp": "[degF]", "Creatinine": "umol/L", "Lactate": "mg/dL"}
SETTINGS = {
    "csv": """
source = "tables"
stays = { file = "stays.csv", patient = "patient", stay = "stay", start = "start", end = "end", \
birth = "birth", label = "died" }
events = [{ file = "events.csv", stay = "stay", time = "time", variable = "name", \
value = "value", unit = "unit" }]
variables = { Gender = { column = "sex", values = { M = 1, F = 0 } } }
""",
    "meds": 'source = "meds"\npath = "."\nunit = "unit"\n',
}
SETTINGS["parquet"] = SETTINGS["csv"].replace(".csv", ".parquet")


def cohort(events: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return synthetic stays and events, in shape and size as of an intensive care unit."""
    sizes = [min(ROWS_AT_ONCE, events - at) for at in range(0, events, ROWS_AT_ONCE)]
    parts = [_part(size, number) for number, size in enumerate(sizes)]
    stays, frames = zip(*parts, strict=True)
    return pl.concat(stays), pl.concat(frames)


def _part(events: int, number: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return some of the stays, of patients that no other part has, and their events."""
    stream, first_id = np.random.default_rng(1 + number), number * ROWS_AT_ONCE
    count = max(1, events // EVENTS_A_STAY)
    first = np.datetime64("2019-01-01T00:00", "us").astype(np.int64)
    start = first + stream.integers(0, 365 * 24 * 60, count) * 60_000_000
    stays = pl.DataFrame(
        {
            "patient": np.arange(count) + 100_000 + first_id,
            "stay": np.arange(count) + 500_000 + first_id,
            "start": start,
            "end": start + stream.integers(50, 90, count) * US_PER_HOUR,
            "birth": start - stream.integers(20, 90, count) * 8766 * US_PER_HOUR,
            "sex": np.where(stream.random(count) < 0.5, "M", "F"),
            "died": (stream.random(count) < 0.12).astype(np.int64),
        }
    ).with_columns(pl.col("start", "end", "birth").cast(pl.Datetime("us")))
    wanted, events = events, events + events // 100  # duplicates are removed below
    stay = stream.integers(0, count, events)
    variable = stream.integers(0, len(SERIES), events)
    known = [KNOWN[name].declaration for name in SERIES]
    center = np.array([one.center for one in known])[variable]
    value = center * stream.uniform(0.9, 1.1, events)
    unit = np.array([one.unit for one in known])[variable]
    for index, name in enumerate(SERIES):
        if name in OTHER_UNITS:
            other = (variable == index) & (stream.random(events) < 0.3)
            there = conversion(
                known[index].unit, OTHER_UNITS[name], variable=name, substance=SUBSTANCES.get(name)
            )
            value[other] = value[other] * there.factor + there.offset
            unit[other] = OTHER_UNITS[name]
    frame = pl.DataFrame(
        {
            "patient": stay + 100_000 + first_id,
            "stay": stay + 500_000 + first_id,
            "time": start[stay] + stream.integers(-2 * 3600, 60 * 3600, events) * 1_000_000,
            "name": np.array(SERIES)[variable],
            "value": np.round(value, 3),
            "unit": unit,
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("us")))
    # The rival does not keep the order of files, so a variable may have only one value at a time.
    frame = frame.unique(["stay", "time", "name"], keep="first", maintain_order=True)
    return stays, frame.head(wanted)


def write(folder: Path, events: int, kinds: tuple[str, ...]) -> None:
    """Write the cohort in each format into one folder."""
    stays, frame = cohort(events)
    if "csv" in kinds:
        stays.write_csv(folder / "stays.csv")
        frame.write_csv(folder / "events.csv")
    if "parquet" in kinds:
        stays.write_parquet(folder / "stays.parquet")
        frame.write_parquet(folder / "events.parquet")
    if "meds" not in kinds:
        return
    codes = {name: f"LOINC//{KNOWN[name].loinc}" for name in SERIES}

    def rows(of: pl.DataFrame, code: pl.Expr, at: pl.Expr) -> pl.DataFrame:
        return of.select(
            pl.col("patient").alias("subject_id"), at.alias("time"), code.alias("code")
        )

    parts = [
        rows(stays, pl.lit("MEDS_BIRTH"), pl.col("birth")),
        rows(stays, pl.lit("GENDER//") + pl.col("sex"), pl.lit(None, pl.Datetime("us"))),
        rows(stays, pl.lit("HOSPITAL_ADMISSION"), pl.col("start")),
        rows(stays, pl.lit("HOSPITAL_DISCHARGE"), pl.col("end")),
        rows(
            stays.filter(pl.col("died") == 1),
            pl.lit("MEDS_DEATH"),
            pl.col("end") - pl.duration(hours=1),
        ),
        rows(frame, pl.col("name").replace_strict(codes), pl.col("time")).with_columns(
            frame["value"].cast(pl.Float32).alias("numeric_value"), frame["unit"]
        ),
    ]
    (folder / "data").mkdir()
    pl.concat(parts, how="diagonal").sort("subject_id", "time").write_parquet(
        folder / "data" / "0.parquet"
    )


def source(folder: Path, kind: str) -> Source:
    settings = tomllib.loads(SETTINGS[kind])
    return open_source(read_data_settings(settings, where="here", folder=folder), STUDY)


def ours(folder: Path, kind: str) -> TimeGrid:
    return to_grid(source(folder, kind).read_patients(STUDY), STUDY)


def by_hand(folder: Path, kind: str) -> TimeGrid:
    """Make the same grid, for this cohort only, with polars and one assignment of numpy."""
    units = pl.DataFrame(
        [
            (f"LOINC//{KNOWN[name].loinc}" if kind == "meds" else name, unit, index,
             of.factor, of.offset, spec.low, spec.high)
            for index, (name, spec) in enumerate(STUDY.variables.items())
            for unit in {spec.unit, OTHER_UNITS.get(name, spec.unit)}
            for of in [conversion(unit, spec.unit, variable=name, substance=SUBSTANCES.get(name))]
        ],
        schema=["name", "unit", "variable", "factor", "offset", "low", "high"],
        orient="row",
    ).lazy()  # fmt: skip  # one row of the table
    if kind == "meds":
        scan = pl.scan_parquet(folder / "data" / "0.parquet")
        code, when = pl.col("code"), pl.col("time")
        stays = (
            scan.filter(~code.str.starts_with("LOINC"))
            .group_by("subject_id")
            .agg(
                when.filter(code == "HOSPITAL_ADMISSION").first().alias("start"),
                when.filter(code == "HOSPITAL_DISCHARGE").first().alias("end"),
                when.filter(code == "MEDS_BIRTH").first().alias("birth"),
                (code == "MEDS_DEATH").any().cast(pl.Int64).alias("died"),
                pl.when((code == "GENDER//M").any()).then(1.0).otherwise(0.0).alias("male"),
            )
            .rename({"subject_id": "key"})
            .collect()
            .with_columns(pl.col("key").alias("patient"))
        )
        events = scan.rename({"subject_id": "key", "code": "name", "numeric_value": "value"})
    else:
        read = pl.scan_parquet if kind == "parquet" else pl.scan_csv
        parse = {"try_parse_dates": True} if kind == "csv" else {}
        male = (pl.col("sex") == "M").cast(pl.Float64).alias("male")
        stays = read(folder / f"stays.{kind}", **parse).with_columns(male).collect()
        stays = stays.rename({"stay": "key"})
        events = read(folder / f"events.{kind}", **parse).rename({"stay": "key"})
    stays = stays.sort("patient").with_row_index("n")
    hours = ((pl.col("time") - pl.col("start")).dt.total_microseconds() / US_PER_HOUR).cast(
        pl.Float32
    )
    value = pl.col("value").cast(pl.Float32) * pl.col("factor") + pl.col("offset")
    kept = (
        events.join(units, on=["name", "unit"])
        .join(stays.lazy().select("key", "n", "start", "end"), on="key")
        .filter(pl.col("time") <= pl.col("end"))
        .select("n", "variable", "low", "high", hours.alias("hours"),
                value.cast(pl.Float32).alias("value"))
        .filter(pl.col("hours").is_between(0, STUDY.data.window_h),
                pl.col("value").is_between(pl.col("low"), pl.col("high")))
        .select("n", "variable", "hours", "value")
        .collect()
        .sort("hours", maintain_order=True)
    )  # fmt: skip  # one step a line
    names, steps = list(STUDY.variables), STUDY.data.steps
    value_NTV = np.full((len(stays), steps, len(names)), np.nan, dtype=np.float32)
    day = {name: stays[name].dt.strftime("%m%d") for name in ("start", "birth")}
    age = stays["start"].dt.year() - stays["birth"].dt.year() - (day["start"] < day["birth"])
    value_NTV[:, 0, names.index("Age")] = age.to_numpy()
    value_NTV[:, 0, names.index("Gender")] = stays["male"].to_numpy()
    step = np.minimum(kept["hours"].to_numpy().astype(np.int64), steps - 1)
    value_NTV[kept["n"].to_numpy(), step, kept["variable"].to_numpy()] = kept["value"].to_numpy()
    length = (stays["end"] - stays["start"]).dt.total_microseconds().to_numpy() / US_PER_HOUR
    return TimeGrid(
        value_NTV=value_NTV,
        mask_NT=np.arange(steps)[None] < np.clip(np.ceil(length), 1, steps)[:, None],
        y_N=stays["died"].to_numpy().astype(np.float32),
        patient_N=np.arange(len(stays)),
        patient_ids=tuple(stays["patient"].cast(pl.String)),
    )


def best(job: Callable[[], object], repeat: int) -> float:
    """Return the seconds of the fastest of ``repeat`` runs."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        job()
        times.append(time.perf_counter() - began)
    return min(times)


def peak_mib(folder: Path, kind: str, what: str = "patients") -> float:
    """Return the peak memory, in MiB, of a process that reads patient by patient, or the grid."""
    done = subprocess.run(  # noqa: S603  # this file itself
        [sys.executable, __file__, "--only-read", str(folder), kind, what],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


def read_only(folder: Path, kind: str, what: str) -> None:
    """Read, and print the peak memory of this process in MiB."""
    if what == "grid":
        ours(folder, kind)
    elif kind != "nothing":
        for _ in source(folder, kind).read_patients(STUDY):
            pass
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def print_memory(rows: int) -> None:
    """Print the peak memory of whole processes that read so many rows."""
    print(f"{rows:,} rows, peak MiB of the whole process; at most {MOST_MIB} are allowed")
    print("format    patient by patient  the grid")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), rows, tuple(SETTINGS))
        for kind in SETTINGS:
            one, grid = (peak_mib(Path(name), kind, what) for what in ("patients", "grid"))
            worst = max(worst, one, grid)
            print(f"{kind:9} {one:18.0f} {grid:9.0f}", flush=True)
    print("met" if worst <= MOST_MIB else "missed")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", type=int, help="rows; measure nothing but memory")
    parser.add_argument("--only-read", nargs=3)
    given = parser.parse_args()
    if given.only_read:
        folder, kind, what = given.only_read
        read_only(Path(folder), kind, what)
        return
    if given.memory:
        print_memory(given.memory)
        return
    norm = Normalisation.reference(STUDY)
    print(f"{given.events:,} events, seconds (best of {given.repeat}), polars threads "
          f"{pl.thread_pool_size()}; grid: value_NTV; tensors: the model's inputs")  # fmt: skip
    print("format    to grid  by hand  ratio   to tensors  by hand  ratio")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given.events, tuple(SETTINGS))
        for kind in SETTINGS:
            mine, theirs = ours(folder, kind), by_hand(folder, kind)
            assert np.array_equal(mine.value_NTV, theirs.value_NTV, equal_nan=True)
            assert np.array_equal(mine.mask_NT, theirs.mask_NT)
            assert np.array_equal(mine.y_N, theirs.y_N)
            grid = best(lambda kind=kind: ours(folder, kind), given.repeat)
            rival = best(lambda kind=kind: by_hand(folder, kind), given.repeat)
            after = best(lambda mine=mine: to_tensors(mine, norm, STUDY), 1)
            worst = max(worst, (grid + after) / (rival + after))
            print(f"{kind:9} {grid:7.2f} {rival:8.2f} {grid / rival:6.2f} {grid + after:12.2f} "
                  f"{rival + after:8.2f} {(grid + after) / (rival + after):6.2f}")  # fmt: skip
            add_row(f"{given.events:,} events to tensors, {kind}", grid + after, unit="s",
                    rival=rival + after, beside="the same by hand in polars and NumPy")  # fmt: skip
    told = "met" if worst <= TARGET else "missed"
    print(f"target: tensors in at most {TARGET} times the rival's time: {told}")
    print("\npeak memory of reading patient by patient, MiB beyond an idle process")
    print("events       " + "".join(f"{kind:>9}" for kind in SETTINGS))
    for millions in (1, 2, 8):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            kinds = tuple(SETTINGS) if millions < 8 else ("parquet",)
            write(folder, millions * 1_000_000, kinds)
            idle = peak_mib(folder, "nothing")
            figures = (f"{peak_mib(folder, kind) - idle:9.0f}" if kind in kinds else f"{'':9}"
                       for kind in SETTINGS)  # fmt: skip
            print(f"{millions},000,000    {''.join(figures)}")


if __name__ == "__main__":
    main()
