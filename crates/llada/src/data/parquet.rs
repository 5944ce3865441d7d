//! The text column of a Parquet file.

use std::{fs::File, path::Path};

use parquet::{
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::Field,
    schema::types::Type,
};

use super::corpus::{Document, place};
use crate::{
    Result,
    data::{DataError, ParquetCause},
    io,
};

/// Visits the rows of `path`, reading only the column `field`.
pub(super) fn visit(
    path: &Path,
    field: &str,
    visit: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<()> {
    let wrong = |cause| DataError::Parquet { path: path.to_path_buf(), cause };
    let not_parquet = |e: ParquetError| wrong(ParquetCause::File(e.to_string()));
    let unreadable = |e: ParquetError| wrong(ParquetCause::Rows(e.to_string()));
    let file = File::open(path).map_err(io("read", path))?;
    let size = file.metadata().map_err(io("read", path))?.len();
    let reader = SerializedFileReader::new(file).map_err(not_parquet)?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = schema.get_fields();
    let Some(column) = columns.iter().find(|c| c.name() == field) else {
        let found = columns.iter().map(|c| c.name().to_owned()).collect();
        return Err(wrong(ParquetCause::Column { field: field.to_owned(), found }).into());
    };
    let projection = Type::group_type_builder(schema.name())
        .with_fields(vec![column.clone()])
        .build()
        .map_err(unreadable)?;
    let total = reader.metadata().file_metadata().num_rows().max(1) as u64;
    let rows = reader.get_row_iter(Some(projection)).map_err(unreadable)?;
    for (index, row) in rows.enumerate() {
        let row = row.map_err(unreadable)?;
        let text = match row.get_column_iter().next() {
            Some((_, Field::Str(text))) => Ok(text.clone()),
            Some((_, Field::Bytes(bytes))) => String::from_utf8(bytes.data().to_vec())
                .map_err(|_| format!("`{field}` is not UTF-8")),
            _ => Err(format!("`{field}` is not a string")),
        };
        let number = index + 1;
        let read = (u128::from(size) * number as u128 / u128::from(total)) as u64;
        visit(Document { text, place: place(path, number), read })?;
    }
    Ok(())
}
