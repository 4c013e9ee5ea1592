"""The schema module is what storage, checks, SQL and docs are made from: it has to be complete."""

import pyarrow as pa
import pytest

from vsel_platform.tables import TABLES, arrow_type


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_describes_itself(name):
    spec = TABLES[name]
    assert spec.description.endswith(".")
    assert spec.partition_by
    assert set(spec.key) <= set(spec.column_names)
    assert len(set(spec.column_names)) == len(spec.columns)
    for column in spec.columns:
        assert column.description.endswith("."), column.name
        assert column.name == column.name.lower()


@pytest.mark.parametrize("name", sorted(TABLES))
def test_key_columns_are_never_null(name):
    spec = TABLES[name]
    nullable = {column.name for column in spec.columns if column.nullable}
    assert not nullable & set(spec.key)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_partition_names_do_not_collide_with_columns(name):
    spec = TABLES[name]
    assert not set(spec.partition_by) & set(spec.column_names)


def test_arrow_schema_carries_types_and_nullability():
    schema = TABLES["losses"].arrow_schema()
    assert schema.field("loss_sum").type == pa.float64()
    assert schema.field("loss_sum").nullable
    assert not schema.field("sample_id").nullable
    assert arrow_type("list<string>") == pa.list_(pa.string())


def test_unknown_type_is_an_error():
    with pytest.raises(KeyError):
        arrow_type("varchar")
