"""Raw rows that Hypothesis makes up: good, broken, out of range, of any text."""

from collections.abc import Mapping

from hypothesis import strategies as st

from tests.support.contracts import Example

_TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "x", "1", "-1", "1.5", "nan", "NA ", "None", "1e3", "1,000", "999999999999999999999"]),
    st.integers(-2, 2**63 + 5).map(str),
    st.floats(-200, 200).map(repr),
    st.text(max_size=8),
)


def raw_rows(example: Example) -> st.SearchStrategy[Mapping[str, str | None]]:
    """Raw rows for a contract, mostly good ones: else nearly every row is rejected and records are hardly compared."""
    any_rows = st.fixed_dictionaries(
        {name: st.one_of(st.sampled_from(likely), _TEXTS) for name, likely in example.texts.items()}
    )
    return st.one_of(
        any_rows,
        st.builds(
            lambda row, names: {**example.good, **{name: row[name] for name in names}},
            any_rows,
            st.sets(st.sampled_from(example.contract.raw_columns), max_size=2),
        ),
    )
