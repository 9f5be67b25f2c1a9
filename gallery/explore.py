# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the payments look like
#
# Category, hour, age, amount, place and month, and what each of them says about fraud.

# %%
from itertools import pairwise

import numpy as np
import polars as pl
from IPython.display import Markdown, display

from gallery.pictures import (
    BLUE,
    FEWEST_CARDS,
    GREY,
    ORANGE,
    draw_average,
    draw_rate,
    per_cent,
    picture,
    rates,
    read,
    show,
    source_of_this_run,
)

source = source_of_this_run()
rows = read(source)
fraud = rows["fraud"].to_numpy()
average = fraud.mean()
display(
    Markdown(
        f"{source.description} {len(rows):,} payments of {rows['card'].n_unique():,} cards, of which "
        f"{fraud.sum():,} are fraud: {average:.2%}. They are **simulated by others**, and easier than real payments. "
        "Bars are 95 % intervals by bootstrap over cards, since payments of one card resemble each other."
        if source.simulator is None
        else f"{source.description} {len(rows):,} payments of {rows['card'].n_unique():,} cards, of which "
        f"{fraud.sum():,} are fraud: {average:.2%}. They are **simulated by the product itself**. "
        "Bars are 95 % intervals by bootstrap over cards, since payments of one card resemble each other."
    )
)

# %% [markdown]
# ## Category

# %%
names = np.array(sorted(rows["category"].drop_nulls().unique()))
group = np.searchsorted(names, rows["category"].fill_null("").to_numpy().astype(str))
group[rows["category"].is_null().to_numpy()] = -1
found = rates(group, rows, len(names))
order = np.argsort(found.rate)
figure, axes = picture(8, 0.34 * len(names) + 1.2)
online = np.array([name.endswith("_net") for name in names])
for kind, colour, label in ((online, ORANGE, "Online"), (~online, BLUE, "In person, or both")):
    at = np.flatnonzero(kind[order])
    chosen = order[at]
    if len(at):
        axes.errorbar(found.rate[chosen], at, xerr=found.reach[:, chosen], fmt="o", color=colour, capsize=3, label=label)
said = np.array([name.replace("_", " ") for name in names])
axes.set_yticks(np.arange(len(names)), said[order])
axes.set(xlabel="Share of payments that are fraud", title="Fraud rate by category", xlim=(0, None))
per_cent(axes, "x")
draw_average(axes, rows, horizontal=False)
most, least = order[-1], order[0]
share = fraud[np.isin(group, order[-3:])].sum() / fraud.sum()
show(
    "category",
    figure,
    "Fraud rate of each category with intervals",
    f"In *{said[most]}* a payment is fraud {found.rate[most] / max(found.rate[least], 1e-9):.0f} times as often as in "
    f"*{said[least]}*, and the three riskiest categories hold {share:.0%} of all frauds: the category alone sorts payments "
    "well, so the model gets it as its smoothed share of frauds among the training rows.",
)

# %% [markdown]
# ## Hour

# %%
hour = rows["hour"].to_numpy().astype(int)
found = rates(hour, rows, 24)
figure, (axes, below) = picture(8, 5.0, rows=2, sharex=True, gridspec_kw={"height_ratios": [2.4, 1]})
for panel in (axes, below):
    for begin, end in ((-0.5, 5.5), (21.5, 23.5)):
        panel.axvspan(begin, end, color="#f1f1f1", zorder=0, linewidth=0)
draw_rate(axes, np.arange(24), found)
draw_average(axes, rows)
axes.set(title="Fraud rate by hour (grey: night, 22:00 to 06:00)", ylabel="Share that are fraud")
below.bar(np.arange(24), found.payments / found.payments.sum(), color=GREY, width=0.8)
below.set(xlabel=f"Hour of the day ({source.timezone})", ylabel="Share of\npayments", xticks=range(0, 24, 2), xlim=(-0.5, 23.5))
per_cent(below)
night = (hour >= 22) | (hour < 6)
more = fraud[night].mean() / max(fraud[~night].mean(), 1e-9)
show(
    "hour",
    figure,
    "Fraud rate by hour of the day, and how many payments there are",
    f"By night a payment is fraud {more:.0f} times as often as by day, and {fraud[night].sum() / fraud.sum():.0%} of all frauds "
    "fall into these eight hours, with steps rather than a slope: the hour is worth a feature, and trees find steps that a "
    "straight line cannot.",
)

# %% [markdown]
# ## Amount

# %%
amount = rows["amount"].to_numpy()
edges = np.array([0, 5, 10, 20, 50, 100, 200, 300, 500, 750, 1_000, 1_500, np.inf])
found = rates(np.digitize(amount, edges) - 1, rows, len(edges) - 1)
figure, (left, right) = picture(10, 4.4, columns=2)
bins = np.geomspace(1, max(np.quantile(amount, 0.9999), 10), 60)
for kind, colour, label in ((~fraud, BLUE, "Legitimate"), (fraud, ORANGE, "Fraud")):
    weights = np.full(kind.sum(), 1 / max(kind.sum(), 1))
    left.hist(np.maximum(amount[kind], 1), bins, weights=weights, histtype="stepfilled", alpha=0.55, color=colour, label=label)
left.set_xscale("log")
left.set(title="How large payments are", xlabel="Amount (currency units, log scale)", ylabel="Share of payments of each kind")
left.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
left.legend(frameon=False, fontsize=9)
per_cent(left)
enough = found.payments >= 100
places = np.arange(len(edges) - 1)
draw_rate(right, places[enough], type(found)(*(part[enough] for part in vars(found).values())))
labels = [f"{low:,.0f} to {high:,.0f}" for low, high in pairwise(edges[:-1])] + [f"over {edges[-2]:,.0f}"]
right.set_xticks(places, labels, rotation=50, ha="right")
right.set(title="Fraud rate by amount", xlabel="Amount (currency units)", ylabel="Share that are fraud")
draw_average(right, rows)
peak = np.flatnonzero(enough)[np.argmax(found.rate[enough])]
ordinary = np.average(amount < 200)
show(
    "amount",
    figure,
    "Distribution of amounts of legitimate payments and frauds, and the fraud rate by amount",
    f"Frauds come in humps of their own: of payments of {labels[peak]}, {found.rate[peak]:.0%} are fraud, while {ordinary:.0%} "
    "of all payments are below 200; the rate rises and falls again, so no threshold on the amount will do, and its logarithm "
    "goes into trees.",
)

# %% [markdown]
# ## Category and hour together

# %%
known = group >= 0
table = rates(np.where(known, group * 24 + hour, -1), rows, 24 * len(names))
shown = np.where(table.payments >= 50, table.rate, np.nan).reshape(len(names), 24)[order]
figure, axes = picture(8.6, 0.32 * len(names) + 1.3)
floor = average / 10
image = axes.imshow(np.log10(np.maximum(shown, floor)), aspect="auto", cmap="viridis", origin="lower", interpolation="nearest")
axes.grid(visible=False)
axes.set_yticks(np.arange(len(names)), said[order])
axes.set(xlabel=f"Hour of the day ({source.timezone})", title="Fraud rate by category and hour", xticks=range(0, 24, 2))
bar = figure.colorbar(image, ax=axes, label="Share that are fraud (log scale)")
ticks = [tick for tick in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if floor <= tick <= np.nanmax(shown)]
bar.set_ticks(np.log10(ticks), labels=[f"{100 * tick:g}%" for tick in ticks])
row, column = np.unravel_index(np.nanargmax(shown), shown.shape)
where = said[order][row]
show(
    "category-hour",
    figure,
    "Fraud rate of each category in each hour, as colours",
    f"By night the rate rises in most categories, and highest where it was high already: *{where}* at {column}:00 reaches "
    f"{shown[row, column]:.0%}, {shown[row, column] / average:.0f} times the average of all payments; a model must be able "
    "to let features work together, which trees do and a sum of points does not.",
)

# %% [markdown]
# ## Age

# %%
age = rows["age"].to_numpy()
bands = np.array([0, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 130])
found = rates(np.where(np.isnan(age), -1, np.digitize(age, bands) - 1), rows, len(bands) - 1)
enough = found.cards >= FEWEST_CARDS
places = np.arange(len(bands) - 1)
figure, axes = picture(8, 4.2)
draw_rate(axes, places[enough], type(found)(*(part[enough] for part in vars(found).values())))
draw_average(axes, rows)
names_of = ["under 20", *(f"{low} to {high - 1}" for low, high in pairwise(bands[1:-1])), "85 and over"]
axes.set_xticks(places, names_of, rotation=40, ha="right")
axes.set(title="Fraud rate by the cardholder's age at the payment", xlabel="Age (years)", ylabel="Share that are fraud")
old = age >= 45
ratio = fraud[old].mean() / max(fraud[age < 45].mean(), 1e-9)
show(
    "age",
    figure,
    "Fraud rate by age with intervals",
    f"From 45 on, payments are fraud {ratio:.1f} times as often as before, and within the two halves the intervals overlap: "
    "age helps a little beside the hour and the amount, and is nothing to decide by alone.",
)

# %% [markdown]
# ## Place

# %%
step = 2.0
x = np.floor(rows["home_longitude"].to_numpy() / step).astype(int)
y = np.floor(rows["home_latitude"].to_numpy() / step).astype(int)
squares, where_is = np.unique(np.column_stack([x, y]), axis=0, return_inverse=True)
found = rates(where_is.ravel(), rows, len(squares))
bulk = np.quantile(x, [0.002, 0.998]), np.quantile(y, [0.002, 0.998])
inside = (squares >= [bulk[0][0], bulk[1][0]]).all(1) & (squares <= [bulk[0][1], bulk[1][1]]).all(1)
kept = (found.cards >= FEWEST_CARDS) & inside
figure, (left, right) = picture(10.5, 3.7, columns=2, gridspec_kw={"width_ratios": [1.7, 1]})
centres = (squares[kept] + 0.5) * step
size = 150 * np.sqrt(found.payments[kept] / found.payments[kept].max())
top = np.quantile(found.rate[kept], 0.97)
dots = left.scatter(centres[:, 0], centres[:, 1], c=found.rate[kept], s=size, cmap="viridis", vmin=0, vmax=top, marker="s")
left.set(
    title=f"Fraud rate by home, in squares of {step:g}°", xlabel="Longitude (degrees east)", ylabel="Latitude (degrees north)"
)
left.set_aspect(1.25)
figure.colorbar(dots, ax=left, label="Share that are fraud", format="{x:.1%}", shrink=0.85)
distance = rows["distance"].to_numpy() / 1_000
bins = np.linspace(0, np.nanquantile(distance, 0.999), 50)
for kind, colour, label in ((~fraud, BLUE, "Legitimate"), (fraud, ORANGE, "Fraud")):
    weights = np.full(kind.sum(), 1 / max(kind.sum(), 1))
    right.hist(distance[kind], bins, weights=weights, histtype="stepfilled", alpha=0.55, color=colour, label=label)
right.set(title="From home to the merchant", xlabel="Distance (km)", ylabel="Share of payments of each kind")
right.legend(frameon=False, fontsize=9)
per_cent(right)
far = np.nanmedian(distance[fraud]), np.nanmedian(distance[~fraud])
apart = abs(far[0] / max(far[1], 1e-9) - 1)
overlap = np.mean((found.low[kept] <= average) & (found.high[kept] >= average))
show(
    "place",
    figure,
    "Map of fraud rates in coarse squares, and distances from home to merchant",
    f"The intervals of {overlap:.0%} of the squares hold the average: where somebody lives says little. The median distance to "
    f"the merchant is {far[0]:.0f} km for frauds and {far[1]:.0f} km for the rest, "
    + ("which tells nothing here either" if apart < 0.1 else "which does tell them apart")
    + "; a home's coordinates could only teach a model who is who, so it gets the distance alone.",
)

# %% [markdown]
# ## Month

# %%
months = rows["month"].unique().sort()
group = rows.select(pl.col("month").replace_strict(months, pl.int_range(len(months), eager=True))).to_series().to_numpy()
found = rates(group, rows, len(months))
figure, (axes, below) = picture(8, 5.0, rows=2, sharex=True, gridspec_kw={"height_ratios": [2.4, 1]})
places = np.arange(len(months))
draw_rate(axes, places, found)
draw_average(axes, rows)
axes.set(title="Fraud rate by month", ylabel="Share that are fraud")
below.bar(places, found.payments / 1_000, color=GREY, width=0.8)
every = max(1, len(months) // 12)
below.set_xticks(places[::every], [f"{month:%b %y}" for month in months[::every]], rotation=40, ha="right")
below.set(xlabel="Month", ylabel="Thousand\npayments")
frauds = found.rate * found.payments
show(
    "month",
    figure,
    "Fraud rate of each month, and how many payments there are",
    f"The rate lies between {found.rate.min():.2%} and {found.rate.max():.2%}, since payments swing between "
    f"{found.payments.min() / 1_000:,.0f} and {found.payments.max() / 1_000:,.0f} thousand a month and frauds between "
    f"{frauds.min():,.0f} and {frauds.max():,.0f}: a model that knew the month would learn this calendar by heart, so it does "
    "not, and it is judged on months that come after those it learned from.",
)
