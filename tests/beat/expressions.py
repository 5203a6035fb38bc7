"""Random crontabs, the zones they are tried in, and what the written rules say of them: slowly, one wall time after the other."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

ZONES = [
    "UTC", "America/New_York", "America/St_Johns", "America/Sao_Paulo", "America/Santiago", "America/Havana", "America/Caracas",
    "Europe/London", "Europe/Berlin", "Europe/Lisbon", "Africa/Casablanca", "Africa/Cairo", "Asia/Shanghai", "Asia/Kolkata", "Asia/Tehran",
    "Asia/Gaza", "Asia/Pyongyang", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Auckland",
]  # fmt: skip
FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
LIMITS = {"minute": (0, 59), "hour": (0, 23), "day_of_week": (0, 6), "day_of_month": (1, 31), "month_of_year": (1, 12)}
NAMES = {
    "day_of_week": ["sun", "mon", "Tue", "wednesday", "THU", "fri", "sat"],
    "month_of_year": ["jan", "feb", "March", "apr", "may", "jun", "JUL", "aug", "sep", "oct", "nov", "dec"],
}
MINUTE = timedelta(minutes=1)


def value(chance: random.Random, field: str) -> str:
    low, high = LIMITS[field]
    number = chance.randint(low, high)
    names = NAMES.get(field)
    return names[number - low] if names and chance.random() < 0.4 else str(number)


def part(chance: random.Random, field: str) -> str:
    kind = chance.random()
    if kind < 0.4:
        return value(chance, field)
    span = "*" if kind < 0.6 else f"{value(chance, field)}-{value(chance, field)}"
    return span if chance.random() < 0.4 else f"{span}/{chance.randint(1, 12)}"


def spec(chance: random.Random, field: str) -> str:
    """One field, often `*`."""
    if chance.random() < (0.3 if field in ("minute", "hour") else 0.6):
        return "*"
    return ",".join(part(chance, field) for _ in range(chance.choice((1, 1, 1, 2, 3))))


def crontab_fields(chance: random.Random) -> dict[str, str]:
    return {field: spec(chance, field) for field in FIELDS}


def resolve(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first time that the clock shows *wall*; of one that it skips, as much later as it skips. Python's rule for fold=0 is this."""
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def matches(schedule, wall: datetime) -> bool:
    return (
        wall.minute in schedule.minute
        and wall.hour in schedule.hour
        and wall.isoweekday() % 7 in schedule.day_of_week
        and wall.day in schedule.day_of_month
        and wall.month in schedule.month_of_year
    )


def by_the_rules(schedule, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """All firings from *begin* to before *end*, both full minutes in UTC."""
    shown = set()
    if len(schedule.hour) == 24:
        minutes = (begin + MINUTE * count for count in range((end - begin) // MINUTE))
        shown = {at for at in minutes if matches(schedule, at.astimezone(zone))}
    most = timedelta(hours=39)  # from the least offset to the largest, and a day that is left out
    first = (begin - most).replace(tzinfo=None)
    walls = (first + MINUTE * count for count in range((end - begin + 2 * most) // MINUTE))
    return sorted(shown | {at for wall in walls if matches(schedule, wall) and begin <= (at := resolve(wall, zone)) < end})


def changes(zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """Full hours shortly before which the clock was changed; no clock is changed and changed back within a day."""
    at, found = begin, []
    while at < end:
        hours = [at + timedelta(hours=count) for count in range(25)]
        if hours[0].astimezone(zone).utcoffset() != hours[-1].astimezone(zone).utcoffset():
            offsets = [each.astimezone(zone).utcoffset() for each in hours]
            found += [hours[count] for count in range(1, 25) if offsets[count] != offsets[count - 1]]
        at = hours[-1]
    return found
