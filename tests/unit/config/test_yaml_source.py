import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.config import scalars, yaml_source
from balancerd.config.findings import Place
from balancerd.config.nodes import Entry, Items, Scalar, Table, to_plain


def read_plain(text: str) -> object:
    document = yaml_source.read_text(text, "f.yaml")
    assert document.findings == ()
    assert document.root is not None
    return to_plain(document.root)


def list_findings(text: str | bytes) -> list[str]:
    read = yaml_source.read_bytes(text, "f.yaml") if isinstance(text, bytes) else yaml_source.read_text(text, "f.yaml")
    return [str(finding) for finding in read.findings]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # What YAML 1.1 would have made a boolean, a sexagesimal number, an integer or a date stays a text.
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2026-11-20", "2026-11-20"),
        # The core schema of YAML 1.2.
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nULL", "nULL"),
        ("12", 12),
        ("-12", -12),
        ("+0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("0.05", 0.05),
        ("-.inf", float("-inf")),
        (".", "."),
        ("-", "-"),
        ("1GiB/s", "1GiB/s"),
        ("5%", "5%"),
        ("127.0.0.1:9923", "127.0.0.1:9923"),
        ("9" * 5000, "9" * 5000),
        ("\u0661", "\u0661"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    resolved = scalars.resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(("text", "decimal"), [("0123", "123"), ("-007", "-7"), ("+08", "8"), ("00", "0")])
def test_numbers_with_leading_zeros_are_refused(text: str, decimal: str) -> None:
    assert list_findings(f"a: {text}") == [
        (
            f"f.yaml:1:4: error: {text} is octal to YAML 1.1 and decimal to YAML 1.2: "
            f'write {decimal}, or "{text}" for a text'
        )
    ]


def test_quoted_and_block_scalars_are_texts() -> None:
    assert read_plain("a: '1'\nb: \"true\"\nc: |\n  0123\nd: !!str 5") == {
        "a": "1",
        "b": "true",
        "c": "0123\n",
        "d": "5",
    }


def test_keys_are_texts_as_written() -> None:
    assert read_plain("on: 1\n1: 2\ntrue: 3\n'q': 4") == {"on": 1, "1": 2, "true": 3, "q": 4}


def test_every_key_and_value_knows_its_place() -> None:
    root = yaml_source.read_text("a: 1\nb:\n  - x\n  - é: [2, y]\n", "f.yaml").root

    def at(line: int, column: int) -> Place:
        return Place(path="f.yaml", line=line, column=column)

    inner = Items(place=at(4, 8), nodes=(Scalar(place=at(4, 9), value=2), Scalar(place=at(4, 12), value="y")))
    items = (
        Scalar(place=at(3, 5), value="x"),
        Table(place=at(4, 5), entries={"é": Entry(place=at(4, 5), node=inner)}),
    )
    assert root == Table(
        place=at(1, 1),
        entries={
            "a": Entry(place=at(1, 1), node=Scalar(place=at(1, 4), value=1)),
            "b": Entry(place=at(2, 1), node=Items(place=at(3, 3), nodes=items)),
        },
    )


def test_aliases_repeat_what_their_anchor_holds() -> None:
    assert read_plain("a: &x {k: [1, 2]}\nb: *x\nc: &y text\n*y : d\n&z e: *z\n") == {
        "a": {"k": (1, 2)},
        "b": {"k": (1, 2)},
        "c": "text",
        "text": "d",
        "e": "e",
    }


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~", "null\n", "\ufeff"])
def test_a_file_without_content_is_empty_and_fine(text: str) -> None:
    assert yaml_source.read_bytes(text.encode(), "f.yaml") == yaml_source.Document(root=None, findings=())


def test_a_byte_order_mark_moves_no_column() -> None:
    assert yaml_source.read_bytes(b"\xef\xbb\xbfa: 1", "f.yaml") == yaml_source.read_bytes(b"a: 1", "f.yaml")
    assert list_findings(b"\xef\xbb\xbfa: 1\nb: \xff") == [
        "f.yaml:2:4: error: byte 0xff is not UTF-8: save the file in UTF-8"
    ]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: error: duplicate key 'a': it is set at line 1, column 1, keep one"),
        ("s: {a: 1, b: 2, a: 3}", "f.yaml:1:17: error: duplicate key 'a': it is set at line 1, column 5, keep one"),
        ("a:\n\t- b", "f.yaml:2:1: error: a tab where YAML wants spaces: indent with spaces"),
        (
            "a: b: c",
            (
                "f.yaml:1:5: error: this is not YAML: mapping values are not allowed in this context "
                "(put the value in quotes, or check the indentation)"
            ),
        ),
        (
            "a: 'x\nb: 1\n",
            "f.yaml:1:4: error: this is not YAML: found unexpected end of stream (close the quote that opens here)",
        ),
        (
            "a: [1, 2\n",
            (
                "f.yaml:2:1: error: this is not YAML: did not find expected ',' or ']' "
                "(close the list with ']', or separate its items with ',')"
            ),
        ),
        (
            "a: {b: 1\n",
            (
                "f.yaml:2:1: error: this is not YAML: did not find expected ',' or '}' "
                "(close the mapping with '}', or separate its keys with ',')"
            ),
        ),
        (
            "a: @b",
            (
                "f.yaml:1:4: error: this is not YAML: found character that cannot start any token "
                "(put the value in quotes)"
            ),
        ),
        (
            "a: [::1]:9923",
            "f.yaml:1:5: error: this is not YAML: did not find expected node content (put the value in quotes)",
        ),
        (
            "a: *:9923",
            (
                "f.yaml:1:5: error: this is not YAML: did not find expected alphabetic or numeric character "
                "(put the value in quotes: '*' and '&' are special)"
            ),
        ),
        (
            "a: 1\nb\nc: 2",
            (
                "f.yaml:3:1: error: this is not YAML: could not find expected ':' "
                "(write 'key: value', with a space after the colon)"
            ),
        ),
        ("- a\n- b", "f.yaml:1:1: error: the file holds a list: write keys and values such as 'mode: enforce'"),
        (
            "\nenforce",
            "f.yaml:2:1: error: the file holds a single value: write keys and values such as 'mode: enforce'",
        ),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: error: a second document: keep one, and remove this '---'"),
        ("a: *b", "f.yaml:1:4: error: alias *b has no complete anchor &b before it"),
        ("a: &b [*b]", "f.yaml:1:8: error: alias *b has no complete anchor &b before it"),
        ("a: !!binary x", "f.yaml:1:4: error: tag '!!binary' is not supported: remove it"),
        ("a: !x {}", "f.yaml:1:4: error: tag '!x' is not supported: remove it"),
        (
            "a: &x {}\n<<: *x",
            "f.yaml:2:1: error: merge keys ('<<') are not supported: repeat the keys, or alias a whole mapping",
        ),
        ("? [a]\n: b", "f.yaml:1:3: error: a key must be a plain name: put the value in quotes if this is a value"),
        ("a: \x07", "f.yaml:1:4: error: control character U+0007: remove it"),
        ("a: 1\nb: \ud800", "f.yaml:2:4: error: control character U+D800: remove it"),
        (b"m\xc3\xb6de: 1\n\xc3\xb6: \xe9", "f.yaml:2:4: error: byte 0xe9 is not UTF-8: save the file in UTF-8"),
        (b"a: \xc3", "f.yaml:1:4: error: byte 0xc3 is not UTF-8: save the file in UTF-8"),
        (b"\xff\xfea\0", "f.yaml:1:1: error: byte 0xff is not UTF-8: save the file in UTF-8"),
        (
            b"#" * (2**20 + 1),
            "f.yaml: error: the file is larger than 1MiB, which no configuration needs: is it the right file?",
        ),
        ("[" * 1_000_000, "f.yaml:1:33: error: nested more than 32 levels deep: flatten it"),
        ("- " * 1_000_000, "f.yaml:1:65: error: nested more than 32 levels deep: flatten it"),
        (
            "- a\n" * 100_000,
            "f.yaml:50000:3: error: more than 50000 values, aliases expanded: is it the right file?",
        ),
    ],
    ids=range(29),
)
def test_what_yaml_allows_or_forbids_is_found_at_its_place(text: str | bytes, finding: str) -> None:
    assert list_findings(text) == [finding]


def test_aliases_cannot_expand_without_bound() -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (finding,) = list_findings("\n".join(lines))
    assert finding.endswith("error: more than 50000 values, aliases expanded: is it the right file?")


def test_aliases_cannot_nest_without_bound() -> None:
    ladder = "a: &a [[[[[[[[[[1]]]]]]]]]]\nb: &b [[[[[[[[[[*a]]]]]]]]]]\nc: [[[[[[[[[[[[*b]]]]]]]]]]]]\n"
    assert list_findings(ladder) == ["f.yaml:3:16: error: this alias nests more than 32 levels deep: flatten it"]


def test_reading_goes_on_after_a_duplicate_but_not_for_ever() -> None:
    findings = list_findings("a: 1\n" * 1000)
    assert findings[0] == "f.yaml:2:1: error: duplicate key 'a': it is set at line 1, column 1, keep one"
    assert findings[-1] == "f.yaml:101:1: error: 100 errors up to here, not reading on: fix these first"
    assert len(findings) == yaml_source.MOST_FINDINGS + 1


def test_the_first_of_two_equal_keys_counts() -> None:
    root = yaml_source.read_text("a: 1\na: 2", "f.yaml").root
    assert root is not None
    assert to_plain(root) == {"a": 1}


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_reading_raise(data: bytes) -> None:
    document = yaml_source.read_bytes(data, "f.yaml")
    assert document.root is None or isinstance(document.root, Table)
    assert all(finding.severity == "error" for finding in document.findings)
