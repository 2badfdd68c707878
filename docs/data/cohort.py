"""Made-up patients for the pages about records: nobody's data, and the same in every form.

``STAYS``: dictionaries of patient, stay, sex ("m", "f"), born (date), start, end (datetime, the
hospital's own clock) and died (bool). ``RESULTS``: dictionaries of patient, stay, time (datetime),
name ("HR", "Na", "Creatinine"), value and unit.
"""

import datetime as dt
import math

STAYS, RESULTS = [], []
for n in range(60):
    died = n % 3 == 0
    start = dt.datetime(2024, 2, 5, 7, 10) + dt.timedelta(hours=31 * n, minutes=7 * n)
    stay = {
        "patient": 1000 + n,
        "stay": 5000 + n,
        "sex": "fm"[n % 2],
        "born": dt.date(1930 + n * 7 % 50, 1 + n % 12, 1 + n % 28),
        "start": start,
        "end": start + dt.timedelta(hours=26 + n % 40),
        "died": died,
    }
    STAYS.append(stay)
    for hour in range(0, 24, 2):
        time = start + dt.timedelta(hours=hour, minutes=5 + n)
        wave = math.sin(1.7 * n + hour)
        values = {"HR": (round(84 + 14 * wave + 8 * died), "/min")}
        if hour % 8 == 0:
            values["Na"] = (round(139 + 4 * math.sin(2.3 * n + hour), 1), "mmol/L")
            values["Creatinine"] = (round(1.1 * math.exp(0.5 * wave + 0.3 * died), 2), "mg/dL")
        for name, (value, unit) in values.items():
            RESULTS.append(
                {
                    "patient": stay["patient"],
                    "stay": stay["stay"],
                    "time": time,
                    "name": name,
                    "value": value,
                    "unit": unit,
                }
            )
