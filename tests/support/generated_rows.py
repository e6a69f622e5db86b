"""Raw listings that Hypothesis makes up: good, broken, out of range, of any text."""

from hypothesis import strategies as st

from tests.support.raw_listings import LISTING
from transforms.listings import CONTRACT

_texts = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "x", "1", "-1", "1.5", "nan", "1e3", "1,000", "999999999999999999999"]),
    st.text(max_size=8),
)
_any_rows = st.fixed_dictionaries(
    {
        "id": st.one_of(st.integers(1, 2**63 + 5).map(str), _texts),
        "neighbourhood_group_cleansed": st.one_of(st.sampled_from(["Bronx", " Queens "]), _texts),
        "neighbourhood_cleansed": st.one_of(st.just("Harlem"), _texts),
        "room_type": st.one_of(st.sampled_from(["Private room", "Entire home/apt", "Hotel room "]), _texts),
        "property_type": st.one_of(st.sampled_from(["Entire loft", "Tiny house"]), _texts),
        "accommodates": st.one_of(st.integers(-1, 70).map(str), _texts),
        "bathrooms_text": st.one_of(st.sampled_from(["1 bath", "Half-bath", "1.5 shared baths", "99 baths"]), _texts),
        "bathrooms": st.one_of(st.floats(0, 60).map(str), _texts),
        "bedrooms": st.one_of(st.floats(-1, 60).map(str), _texts),
        "beds": st.one_of(st.integers(-1, 101).map(str), _texts),
        "latitude": st.one_of(st.floats(-91, 91).map(repr), _texts),
        "longitude": st.one_of(st.floats(-181, 181).map(repr), _texts),
        "amenities": st.one_of(st.sampled_from(['["TV", "Wifi"]', "[]", '["Window AC unit"]', '["TV"', "TV"]), _texts),
        "price": st.one_of(st.floats(0, 20_000).map(lambda price: f"${price:,.2f}"), _texts),
    }
)
# Mostly good rows: else nearly every row is rejected and records are hardly compared.
raw_rows = st.one_of(
    _any_rows,
    st.builds(
        lambda row, names: {**LISTING, **{name: row[name] for name in names}},
        _any_rows,
        st.sets(st.sampled_from(CONTRACT.raw_columns), max_size=2),
    ),
)
