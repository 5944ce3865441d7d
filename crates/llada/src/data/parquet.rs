//! Rows of a Parquet file, of which only the columns that are wanted are read.

use std::{
    fs::File,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use parquet::{
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::{Field, Row},
    schema::types::Type,
};
use serde_json::{Map, Value};

use crate::{
    Result,
    content::{Content, HEAD, PARQUET_MAGIC},
    data::{DataError, ParquetCause},
    io,
};

/// Takes the number of a row from 1, the row, and the bytes of the file read so far.
type EachRow<'e> = dyn FnMut(usize, Map<String, Value>, u64) -> Result<()> + 'e;

/// All rows of a file that is not larger than `limit`.
pub(crate) fn all(path: &Path, limit: u64) -> Result<Vec<Map<String, Value>>> {
    let size = std::fs::metadata(path).map_err(io("read", path))?.len();
    if size > limit {
        let what = format!("larger than {limit} bytes");
        return Err(io("read", path)(std::io::Error::other(what)));
    }
    let mut found = Vec::new();
    rows(path, None, &mut |_, row, _| {
        found.push(row);
        Ok(())
    })?;
    Ok(found)
}

/// Visits the rows of `path`, with those of `columns` that it has (it must have one) or with all.
pub(super) fn rows(path: &Path, columns: Option<&[&str]>, each: &mut EachRow<'_>) -> Result<()> {
    let wrong = |cause| DataError::Parquet { path: path.to_path_buf(), cause };
    let unreadable = |e: ParquetError| wrong(ParquetCause::Rows(e.to_string()));
    let size = std::fs::metadata(path).map_err(io("read", path))?.len();
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    let is_wanted = |name: &str| columns.is_none_or(|columns| columns.contains(&name));
    let wanted = schema.get_fields().iter().filter(|column| is_wanted(column.name()));
    let wanted: Vec<_> = wanted.cloned().collect();
    if wanted.is_empty() {
        let found = schema.get_fields().iter().map(|c| c.name().to_owned()).collect();
        let field = columns.unwrap_or_default().join("`, `");
        return Err(wrong(ParquetCause::Column { field, found }).into());
    }
    let projection =
        Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(unreadable)?;
    let total = reader.metadata().file_metadata().num_rows().max(1) as u64;
    let mut rows = guard(|| reader.get_row_iter(Some(projection))).map_err(unreadable)?;
    let mut number = 0;
    while let Some(row) = guard(|| rows.next().transpose()).map_err(unreadable)? {
        number += 1;
        let read = (u128::from(size) * number as u128 / u128::from(total)) as u64;
        each(number, object(&row), read)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let mut file = File::open(path).map_err(io("read", path))?;
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(io("read", path))?;
    if let Some(content) = Content::of_data(&head).filter(|_| !head.starts_with(PARQUET_MAGIC)) {
        return Err(content.error(path));
    }
    guard(|| SerializedFileReader::new(file)).map_err(|e| {
        let cause = ParquetCause::File(e.to_string());
        DataError::Parquet { path: path.to_path_buf(), cause }.into()
    })
}

/// The `parquet` library panics on some damaged files; here that becomes an error.
fn guard<T>(
    read: impl FnOnce() -> std::result::Result<T, ParquetError>,
) -> std::result::Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("the `parquet` library failed on it".into())))
}

fn object(row: &Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// A value as JSON has it: dates, decimals and the like as their text, bytes that are no text as
/// null.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(b) => (*b).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(group) => Value::Object(object(group)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| match key {
                Field::Str(key) => (key.clone(), value(field)),
                other => (other.to_string(), value(field)),
            };
            Value::Object(map.entries().iter().map(entry).collect())
        }
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests;
