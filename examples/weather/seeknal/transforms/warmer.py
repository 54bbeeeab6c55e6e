"""Which of the two cities was warmer, month by month."""

from collections import Counter

from seeknal.pipeline import transform


@transform(description="Hours in which each city was the warmer one, by month.")
def warmer(ctx):
    by_hour = {}
    for city, moment, celsius in ctx.ref("transform.hourly").fetchall():
        by_hour.setdefault(moment, {})[city] = celsius
    hours = Counter()
    for moment, of_city in by_hour.items():
        if len(of_city) == 2:
            hours[moment.month, max(of_city, key=of_city.get)] += 1
    return [{"month": month, "city": city, "hours": count} for (month, city), count in sorted(hours.items())]
