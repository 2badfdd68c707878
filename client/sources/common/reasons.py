"""Why rows of a hospital's tables were set aside or are doubtful, as worded in reports."""

# Of rows and stays that are left out.
AFTER_END = "events after the end of their stay"
BEFORE_START = "events before the start of their stay"
NO_STAY = "events of no stay in the cohort"
NO_TIME = "rows without a time"
NO_VALUE = "rows without a value"
NOT_A_NUMBER = "values that are no number"
BEYOND_LIMIT = "values beyond a laboratory's limit, taken at the limit"
INCOMPLETE = "stays without a patient, an identifier or a start"
ENDS_EARLY = "stays that end before they start"
IN_FUTURE = "stays that start in the future"
RETRACTED = "records entered in error, cancelled, planned or refuted"
AROUND_END = "events known too roughly in time to be shown before the end of their stay"
VAGUE_EVENT = "events whose time is known to the month or year only"
VAGUE_STAY = "stays whose start or end is known to the month or year only"
NO_ZONE = "times without a time zone, beside stays with one"

# Of what the rules of time decided (docs/time.md).
MIDNIGHTS = (
    "times at exactly midnight are far more than a clock gives, and were taken for their days"
)
BY_DAY = "measurements are known to the day, and count from the end of that day"
STAYS_BY_DAY = "stays have a start or end known to the day, and count from its begin, or to its end"
SKIPPED = "times were never shown by the clock of [data] time_zone, which was put forward then"
ROUGH_OUTCOME = "stays have no label, as their outcome is known too roughly in time"
AFTER_DEATH = "stays have no label, as they begin after the death of their patient"
UNDATED_DEATH = "stays have no label, as nobody knows when their patient died"
CLOCK_OF_STAYS = (
    "offsets are written at the stays, and [data] time_zone is not stated: days are theirs"
)
BAD_LINE = "lines that cannot be read"
UNREADABLE = "messages that cannot be read"
UNKNOWN_UNIT = "rows in a unit that is not known"

# The stages at which rows of one variable are lost, in the order of their way.
OF_OTHERS = "of other persons"
STAGE_NO_TIME = "no time"
STAGE_NO_NUMBER = "no number"
STAGE_UNKNOWN_UNIT = "unknown unit"
STAGE_NO_STAY = "no stay"
STAGE_OUTSIDE_STAY = "outside its stay"
STAGE_OUT_OF_RANGE = "out of range"
LOSSES = (
    STAGE_NO_TIME,
    STAGE_NO_NUMBER,
    STAGE_UNKNOWN_UNIT,
    STAGE_NO_STAY,
    STAGE_OUTSIDE_STAY,
    STAGE_OUT_OF_RANGE,
)
# Rows that are read right and not used.
OUTSIDE_WINDOW = "outside the window"
REPEATED = "repeated"
KEPT = "kept"

# What lost or odd rows look like: a guess at the reason, told as such.
DECIMAL_COMMA = "values written with a decimal comma"
THOUSANDS = "values written with a separator of thousands"
MINUTES = "events that would lie in their stay if their hours were minutes"
DAYS = "events in the first 24th of their stay"
TIMED = "events with hours since the start of a stay"
SHIFTED = "events at most 14 h before or after their stay"
BLANKS = "identifiers and codes that fit only without their blanks"
DOT_ZERO = "identifiers that fit only without their '.0'"
