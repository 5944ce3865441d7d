"""Makes the Parquet files beside this script: `python make.py`, with pyarrow 26."""

import datetime
import decimal
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
DAY = datetime.date(2024, 2, 29)
TIME = datetime.datetime(2024, 2, 29, 12, 30, 1)

# Columns of every kind, which nobody reads.
OTHERS = {
    "big": pa.array([2**64 - 1, None], pa.uint64()),
    "half": pa.array([1.5, float("nan")], pa.float16()),
    "nan": pa.array([float("nan"), float("-inf")]),
    "decimal": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(20, 2)),
    "wide_decimal": pa.array([decimal.Decimal(10) ** 50, None], pa.decimal256(60, 0)),
    "date": pa.array([DAY, None]),
    "time": pa.array([TIME, None], pa.timestamp("ns", tz="UTC")),
    "duration": pa.array([datetime.timedelta(days=1), None]),
    "clock": pa.array([datetime.time(1, 2, 3), None]),
    "bytes": pa.array([b"\xff\xfe", None]),
    "fixed": pa.array([b"\x00\x80", None], pa.binary(2)),
    "label": pa.array(["a", "b"]).dictionary_encode(),
    "lists": pa.array([[[1], [None, 2]], None]),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "nothing": pa.nulls(2),
    "record": pa.array([{"a": {"b": [DAY]}}, None]),
}


def write(name, columns, **options):
    options = {"compression": "zstd", "write_statistics": False, **options}
    pq.write_table(pa.table(columns), HERE / f"{name}.parquet", store_schema=False, **options)


text = {"text": ["first text", None, "third: größer"]}
for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]:
    write(f"text_{codec}", text, compression=codec, use_dictionary=codec != "zstd")
write("text_pages_2", text, data_page_version="2.0", row_group_size=2)
write("text_large", {"text": pa.array(text["text"], pa.large_string())})
write("text_bytes", {"text": [b"ok", b"\xff"], "id": [1, 2]})
write("text_number", {"text": [1, 2]})
write("others", {"text": ["a", "b"], **OTHERS}, use_deprecated_int96_timestamps=True)

turn = lambda role, content: {"role": role, "content": content, "name": None}
chat = [turn("user", "hi"), turn("assistant", "yo")]
write("messages", {"messages": [chat, [turn("system", "s"), *chat], [chat[0], None], None], "id": [1, 2, 3, 4]})
write("messages_in_lists", {"messages": [{"role": ["user", "assistant"], "content": ["hi", "yo"]}]})
share = pa.list_(pa.struct([("from", pa.string()), ("value", pa.large_string())]))
said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]
write("sharegpt", {"conversations": pa.array([said, None, []], share), "messages": pa.nulls(3), "prompt": [None, "hi", None], "response": [None, "yo", None]})
write("pairs", {"prompt": ["hi", "hi"], "response": ["yo", None], **OTHERS})
write("messages_as_json", {"messages": [json.dumps(chat), "[]"]})
write("prompt_completion", {"prompt": [chat[:1], chat[:1]], "completion": [chat[1:], None]})
turns = pa.array([[], [["hi", "yo"]], None], pa.list_(pa.list_(pa.string())))
write("instructions", {"instruction": ["hi"] * 3, "input": ["", "x", None], "output": ["yo", "yo", None], "history": turns})
