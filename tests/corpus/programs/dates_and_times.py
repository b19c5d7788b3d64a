# %% parse dates and compute ages
from datetime import date, datetime, timedelta, timezone


def age(born, today):
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


assert age(date(2000, 2, 29), date(2024, 2, 28)) == 23
when = datetime.strptime("2024-03-01 14:05", "%Y-%m-%d %H:%M")
assert when.strftime("%A, %d %b %Y") == "Friday, 01 Mar 2024"
assert (when + timedelta(days=31, hours=10)).isoformat() == "2024-04-02T00:05:00"
assert datetime.fromisoformat("2024-01-01T00:00:00+00:00") == datetime(2024, 1, 1, tzinfo=timezone.utc)
assert (date(2024, 3, 1) - date(2024, 2, 1)).days == 29

# %% business days and month ends
import calendar
from datetime import date, timedelta


def business_days(start, end):
    day = start
    while day < end:
        if day.weekday() < 5:
            yield day
        day += timedelta(days=1)


def month_end(year, month):
    return date(year, month, calendar.monthrange(year, month)[1])


assert sum(1 for _ in business_days(date(2024, 1, 1), date(2024, 2, 1))) == 23
assert [month_end(2024, m).day for m in (1, 2, 4)] == [31, 29, 30]
assert calendar.isleap(2000) and not calendar.isleap(1900)
assert calendar.TextCalendar().formatmonth(2024, 2).splitlines()[0].strip() == "February 2024"

# %% time zones and daylight saving
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

paris = ZoneInfo("Europe/Paris")
winter = datetime(2024, 1, 15, 12, tzinfo=paris)
summer = winter.replace(month=7)
assert winter.utcoffset() == timedelta(hours=1) and summer.utcoffset() == timedelta(hours=2)
assert winter.astimezone(timezone.utc).hour == 11
assert summer.astimezone(ZoneInfo("America/New_York")).hour == 6

# %% measure and format durations
import time
from datetime import timedelta


def human(seconds):
    parts = []
    for name, size in (("h", 3600), ("m", 60), ("s", 1)):
        n, seconds = divmod(seconds, size)
        if n:
            parts.append(f"{int(n)}{name}")
    return " ".join(parts) or "0s"


started = time.perf_counter()
time.sleep(0.001)
assert time.perf_counter() - started >= 0.001
assert time.monotonic() <= time.monotonic() and time.time() > 1_600_000_000
assert human(3725) == "1h 2m 5s" and human(0) == "0s"
assert str(timedelta(seconds=90061)) == "1 day, 1:01:01"
assert time.strftime("%Y", time.gmtime(0)) == "1970"
assert time.gmtime(86400).tm_mday == 2

# %% recurring events and overlaps
from datetime import datetime, timedelta
from typing import NamedTuple


class Slot(NamedTuple):
    start: datetime
    minutes: int

    @property
    def end(self):
        return self.start + timedelta(minutes=self.minutes)

    def overlaps(self, other):
        return self.start < other.end and other.start < self.end


def weekly(first, n):
    return [Slot(first.start + timedelta(weeks=i), first.minutes) for i in range(n)]


standup = weekly(Slot(datetime(2024, 1, 1, 9), 30), 3)
review = Slot(datetime(2024, 1, 8, 9, 15), 60)
assert [slot.overlaps(review) for slot in standup] == [False, True, False]
assert standup[-1].end == datetime(2024, 1, 15, 9, 30)

# %% iso weeks ordinals and replacing fields
from datetime import date, datetime

d = date(2021, 1, 3)
assert d.isocalendar()[:2] == (2020, 53) and d.toordinal() == 737793
assert date.fromordinal(737793) == d and d.replace(day=1) == date(2021, 1, 1)
assert date.fromisocalendar(2020, 53, 7) == d
assert datetime.combine(d, datetime.min.time()).isoformat() == "2021-01-03T00:00:00"
assert sorted([date(2024, 1, 2), date(2023, 5, 5)])[0].year == 2023
try:
    date(2023, 2, 29)
except ValueError as error:
    assert "day is out of range" in str(error) or "day 29 must be in range" in str(error)
