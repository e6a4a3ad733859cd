# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the stand-in makes of payloads, without any connection."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_server import gson, payloads

CHECK = settings(max_examples=300, database=None, derandomize=True, deadline=None)

VALUES = (  # JSON, stored
    ("true", True),
    ("3", 3),
    ("1E+1", 10),
    ("1.0E10", 10**10),
    ("1.5E3", 1500),
    ("3.0", 3.0),
    ("101E-1", 10.1),
    ("0.1", 0.1),
    ("0.1234567890123456", 0.1234567890123456),
    ("0.30000000000000004", "0.30000000000000004"),
    ("0.020000000000000004", "0.020000000000000004"),
    ("1e-17", "0.00000000000000001"),
    ("12345678.0", 12345678),
    ("12345678.5", 12345678.5),
    ("9223372036854775807", 2**63 - 1),
    ("9223372036854775808", "9223372036854775808"),
    ("1E19", "10000000000000000000"),
    ('"25"', 25),
    ('"007"', 7),
    ('"-5"', -5),
    ('".5"', 0.5),
    ('"1.10"', 1.1),
    ('"1e5"', "1e5"),
    ('"+5"', "+5"),
    ('"5."', "5."),
    ('" 5"', " 5"),
    ('"0x10"', "0x10"),
    ('"NaN"', "NaN"),
    ('""', ""),
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
    ("-Infinity", "-Infinity"),
    ("6.02e23", "602" + "0" * 21),
    ("1e300", "1" + "0" * 300),
    ("1e+300", "1" + "0" * 300),
    ("-9223372036854775809", "-9223372036854775809"),
    ("-9223372036854775808", -(2**63)),
    ('{"b":[1,2.5]}', {"b": [1, 2.5]}),
    ('{"b":[null,{"c":null}]}', {"b": [None, {"c": None}]}),
    ('"\\u00005"', "\x005"),
    ("[]", []),
)


@pytest.mark.parametrize(("sent", "stored"), VALUES, ids=[sent for sent, _ in VALUES])
def test_values_are_stored_as_thingsboard_does(sent, stored):
    values = payloads.stored_values(payloads.parse_object(b'{"k":%s,"n":null}' % sent.encode()))
    assert values == {"k": stored}
    assert type(values["k"]) is type(stored)


LENIENT = (  # text, what Gson reads
    ("{'a':'b'}", {"a": "b"}),
    ("{a:b}", {"a": "b"}),
    ("{a=1;b=>2}", {"a": 1, "b": 2}),
    ("{'a':True,'b':TRUE,'c':False,'d':NULL}", {"a": True, "b": True, "c": False, "d": None}),
    ("{'a':None,'b':undefined,'c':NaN}", {"a": "None", "b": "undefined", "c": "NaN"}),
    ("{a:0x1F,b:01,c:.5,d:+5}", {"a": "0x1F", "b": "01", "c": ".5", "d": "+5"}),
    ("{a:1.5,b:-2,c:1e3}", {"a": 1.5, "b": -2, "c": 1000.0}),
    ("# one\n{a /* two */ : 1 // three\n}", {"a": 1}),
    ("[1,]", [1, None]),
    ("[,]", [None, None]),
    ("[1;[];{}]", [1, [], {}]),
    ("{'a':'it\\'s \\u0041\\n'}", {"a": "it's A\n"}),
    ("{'a\\/':1}", {"a/": 1}),
    ('{"a":"two\nlines"}', {"a": "two\nlines"}),
    ("{a:1,a:2}", {"a": 2}),
    ("text", "text"),
    ("", None),
    (" \n", None),
    ("// nothing", None),
)


@pytest.mark.parametrize(("text", "value"), LENIENT, ids=[text for text, _ in LENIENT])
def test_lenient_json_is_read(text, value):
    assert gson.parse(text.encode()) == value


@pytest.mark.parametrize(
    "text",
    (
        "{a:1,}",
        "{,}",
        "{a:}",
        "{a}",
        "{:1}",
        "{a:1 b:2}",
        "[1 2]",
        "{a:1} x",
        "{a:1",
        "[1",
        "{'a:1}",
        "{'a':'\\x'}",
        "}",
        "[" * 256 + "]" * 256,
        "['" + "]" * 256 + "'" + ",['\"'" * 256,
    ),
)
def test_what_even_gson_refuses_is_an_error(text):
    with pytest.raises(ValueError):
        gson.parse(text.encode())


def test_255_levels_are_allowed():
    assert gson.parse(b"[" * 254 + b"[],[]" + b"]" * 254)
    assert gson.parse(b"['x'," + b"[" * 253 + b"[],[]" + b"]" * 253 + b"]")


def test_many_brackets_side_by_side_are_not_deep():
    rows = b"[%s]" % b",".join([b'{"a":"[[[[\\"["}'] * 300)
    assert len(gson.parse(rows)) == 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON.filter(lambda value: value is not None))
@CHECK
def test_the_lenient_reader_reads_plain_json_like_the_standard_library(value):
    text = json.dumps(value).replace("Infinity", "1e999")
    assert gson.LenientReader(text).read_document() == json.loads(text)


def holds_infinity(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(holds_infinity(item) for item in value)
    return value in (float("inf"), float("-inf"))


@given(JSON)
@CHECK
def test_what_is_written_is_read_back(value):
    if holds_infinity(value):
        with pytest.raises(ValueError):
            payloads.to_json(value)
    else:
        assert json.loads(payloads.to_json(value)) == value


@given(
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.text("{}[]:;,='\"# ats1e.-\\u0/*", max_size=40).map(str.encode)
)
@CHECK
def test_any_payload_raises_nothing_but_what_closes_the_connection(payload):
    for read in (
        lambda: payloads.telemetry_rows(payload, 0),
        lambda: payloads.stored_values(payloads.parse_object(payload)),
        lambda: payloads.attribute_request_keys(payload),
        lambda: payloads.client_rpc(payload),
        lambda: payloads.claim(payload),
        lambda: payloads.to_json(payloads.parse(payload)),
    ):
        try:
            read()
        except (payloads.InvalidPayload, payloads.Uncaught):
            pass


@pytest.mark.parametrize(
    ("value", "text"),
    (
        (42.0, "42.0"),
        (0.0, "0.0"),
        (-0.001, "-0.001"),
        (9999999.5, "9999999.5"),
        (1e7, "1.0E7"),
        (1e10, "1.0E10"),
        (123456789.0, "1.23456789E8"),
        (1e-7, "1.0E-7"),
        (-0.00012, "-1.2E-4"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
    ),
)
def test_doubles_are_written_as_java_does(value, text):
    assert payloads.to_json(value) == text.encode()


@pytest.mark.parametrize("value", (float("nan"), float("inf"), float("-inf")))
def test_nan_and_infinity_are_not_written(value):
    with pytest.raises(ValueError):
        payloads.to_json([value])


@pytest.mark.parametrize("text", ("0", "+5", "-5", "007", "2147483647", "-2147483648"))
def test_a_request_id_is_read_like_parse_int(text):
    assert payloads.request_id(text) == int(text)


@pytest.mark.parametrize("text", ("", " 5", "5 ", "1_0", "5.0", "x", "2147483648", "9" * 5000))
def test_a_request_id_out_of_range_is_invalid(text):
    with pytest.raises(payloads.InvalidPayload):
        payloads.request_id(text)


@pytest.mark.parametrize(
    ("ts", "read"),
    (
        (b"1", 1),
        (b'"-7"', -7),
        (b"1.5e12", 1500000000000),
        (b"[3]", 3),
        (b"9223372036854775808", -(2**63)),
    ),
)
def test_ts_is_read_like_get_as_long(ts, read):
    assert payloads.telemetry_rows(b'{"ts":%s,"values":{"a":1}}' % ts, 0) == [(read, {"a": 1})]
