"""Writes digits.parquet from the copy of the data set that scikit-learn carries.

pip install scikit-learn pyarrow
python make_digits.py
"""

from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
from sklearn.datasets import load_digits

digits = load_digits()
pixels = digits.data.astype(numpy.uint8)
assert (pixels == digits.data).all(), "pixels are integers from 0 to 16"
item = pyarrow.field("item", pyarrow.uint8(), nullable=False)
rows = pyarrow.FixedSizeListArray.from_arrays(
    pyarrow.array(pixels.ravel()), type=pyarrow.list_(item, pixels.shape[1])
)
schema = pyarrow.schema(
    [
        pyarrow.field("pixels", rows.type, nullable=False),
        pyarrow.field("label", pyarrow.int64(), nullable=False),
    ]
)
table = pyarrow.Table.from_arrays([rows, pyarrow.array(digits.target)], schema=schema)
pyarrow.parquet.write_table(table, Path(__file__).with_name("digits.parquet"), compression="zstd")
