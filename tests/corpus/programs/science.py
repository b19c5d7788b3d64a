# %% numpy arrays masks and broadcasting
import numpy as np

a = np.arange(12).reshape(3, 4)
assert a.sum(axis=0).tolist() == [12, 15, 18, 21] and a[a % 2 == 0].size == 6
a[1] += 100
a[:, 0] *= 2
assert a[1].tolist() == [208, 105, 106, 107]
b = np.linspace(0, 1, 5)
assert np.allclose(b[:, None] * b[None, :], np.outer(b, b))
assert np.where(b > 0.5, 1, 0).tolist() == [0, 0, 0, 1, 1]
assert a.dtype.kind == "i" and a.T.shape == (4, 3)

# %% numpy random linear algebra and statistics
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(200, 2))
y = x @ np.array([2.0, -3.0]) + 1
design = np.column_stack([x, np.ones(len(x))])
solution, *_ = np.linalg.lstsq(design, y, rcond=None)
assert np.allclose(solution, [2, -3, 1])
values, vectors = np.linalg.eigh(np.array([[2.0, 1.0], [1.0, 2.0]]))
assert np.allclose(values, [1, 3])
assert np.isclose(np.corrcoef(x[:, 0], 2 * x[:, 0])[0, 1], 1)
np.random.seed(1)
assert 0 <= np.random.rand() < 1

# %% numpy structured data and text
import io
import numpy as np

table = np.genfromtxt(io.StringIO("a,b\n1,2.5\n3,4.5\n"), delimiter=",", names=True)
assert table["b"].mean() == 3.5
people = np.array([("ann", 31), ("bob", 25)], dtype=[("name", "U10"), ("age", "i4")])
assert np.sort(people, order="age")["name"].tolist() == ["bob", "ann"]
assert np.unique([3, 1, 3], return_counts=True)[1].tolist() == [1, 2]
assert np.char.upper(np.array(["a", "b"])).tolist() == ["A", "B"]

# %% pandas group aggregate and pivot
import pandas as pd

df = pd.DataFrame(
    {"city": ["oslo", "rome", "oslo", "rome"], "year": [2023, 2023, 2024, 2024], "sales": [10, 20, 30, 40]}
)
totals = df.groupby("city")["sales"].agg(["sum", "mean"])
assert totals.loc["oslo", "sum"] == 40
pivot = df.pivot_table(index="city", columns="year", values="sales", aggfunc="sum")
assert pivot.loc["rome", 2024] == 40
df["share"] = df["sales"] / df.groupby("year")["sales"].transform("sum")
assert df["share"].round(2).tolist() == [0.33, 0.67, 0.43, 0.57]
assert df.query("sales > 15 and city == 'rome'").shape == (2, 4)
df.loc[df.city == "oslo", "sales"] += 1
assert df.sales.tolist() == [11, 20, 31, 40]

# %% pandas reading merging and cleaning
import io
import pandas as pd

CSV = "id,name,joined,score\n1,Ann,2024-01-05,9.5\n2,Bob,2024-02-10,\n2,Bob,2024-02-10,\n3,,2024-03-01,7\n"
df = pd.read_csv(io.StringIO(CSV), parse_dates=["joined"])
clean = df.drop_duplicates().assign(name=lambda d: d["name"].fillna("?"), score=lambda d: d["score"].fillna(d["score"].mean()))
assert len(clean) == 3 and clean["score"].iloc[1] == 8.25
extra = pd.DataFrame({"id": [1, 3], "team": ["red", "blue"]})
merged = clean.merge(extra, on="id", how="left")
assert merged["team"].isna().sum() == 1
assert merged["joined"].dt.month.tolist() == [1, 2, 3]
assert merged.sort_values("score", ascending=False)["name"].tolist() == ["Ann", "Bob", "?"]
assert "name" in merged.to_csv(index=False).splitlines()[0]

# %% pandas time series and apply
import numpy as np
import pandas as pd

days = pd.date_range("2024-01-01", periods=90, freq="D")
series = pd.Series(np.arange(90), index=days)
monthly = series.resample("MS").sum()
assert monthly.iloc[0] == sum(range(31)) and len(monthly) == 3
assert series.rolling(3).mean().iloc[2] == 1
frame = pd.DataFrame({"t": ["a-1", "b-2"]})
frame[["k", "n"]] = frame["t"].str.split("-", expand=True)
frame["n"] = frame["n"].astype(int)
assert frame.apply(lambda row: row["k"] * row["n"], axis=1).tolist() == ["a", "bb"]
assert frame.describe().loc["mean", "n"] == 1.5
assert series["2024-02"].size == 29

# %% matplotlib figure to bytes
import io
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

fig, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
left.plot([1, 2, 3], [1, 4, 9], label="squares")
left.set_title("Line")
left.legend()
right.bar(["a", "b"], [3, 5])
out = io.BytesIO()
fig.savefig(out, format="png", dpi=40)
plt.close(fig)
assert out.getvalue().startswith(b"\x89PNG") and len(out.getvalue()) > 500

# %% polars lazy query
import polars as pl

df = pl.DataFrame({"k": ["a", "b", "a"], "v": [1, 2, 3]})
out = df.lazy().filter(pl.col("v") > 1).group_by("k").agg(pl.col("v").sum().alias("total")).sort("k").collect()
assert out.to_dicts() == [{"k": "a", "total": 3}, {"k": "b", "total": 2}]
assert df.with_columns((pl.col("v") * 2).alias("w"))["w"].to_list() == [2, 4, 6]

# %% dates parsed by C code that imports
from datetime import datetime
import numpy as np
import pandas as pd

assert datetime.strptime("1 Jan 2024", "%d %b %Y").year == 2024
assert pd.to_datetime("March 5, 2024").day == 5
assert np.datetime64("2024-01-01") + np.timedelta64(31, "D") == np.datetime64("2024-02-01")
assert repr(np.array([1.5, 2.0])) == "array([1.5, 2. ])"
assert "{:.2f}".format(np.float64(1.236)) == "1.24"
