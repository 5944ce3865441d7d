//! The rows of a task, out of the files that the user points at or the task file itself.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Map, Value};

use super::{EvalError, csv, task::Data, template};
use crate::{Result, data::parse_json, files::read_text, io};

/// Largest data file: they are held in memory.
const MAX_FILE: u64 = 1 << 30;

/// One row, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Its columns.
    pub(super) fields: Map<String, Value>,
    /// The group of its file.
    pub(super) group: Option<String>,
    /// `file:line`, or `file#number` where rows are no lines.
    pub(super) place: String,
}

impl Row {
    /// Its columns, `group` and `index`, for templates.
    pub(super) fn values(&self, index: usize) -> minijinja::Value {
        let mut fields = self.fields.clone();
        fields.insert("group".into(), self.group.clone().unwrap_or_default().into());
        fields.insert("index".into(), index.into());
        template::value(&fields.into())
    }
}

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BadRow {
    /// Where it stands.
    pub place: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// A row or what is wrong with it, in the order of the files.
pub(super) type Rows = Vec<std::result::Result<Row, BadRow>>;

/// A file of a task, with the group that its name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    pub(super) group: Option<String>,
}

/// The rows that are in the task file.
pub(super) fn inline(task: &str, data: &Data) -> Rows {
    let row = |(i, fields): (usize, &Map<String, Value>)| {
        Ok(Row { fields: fields.clone(), group: None, place: format!("{task}#{}", i + 1) })
    };
    data.rows.iter().enumerate().map(row).collect()
}

/// The files that the first fitting of `patterns` names, and the folder below which they are. They
/// are looked for in `root` and in its subfolder of the task's name; a `root` that is a file is
/// the data itself.
pub(super) fn find(
    root: &Path,
    task: &str,
    patterns: &[String],
) -> Result<(PathBuf, Vec<DataFile>)> {
    if root.is_file() {
        let name = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let group = patterns.iter().find_map(|p| group_of(p.rsplit('/').next()?, &name)?);
        let folder = root.parent().unwrap_or(Path::new("")).to_path_buf();
        return Ok((folder, vec![DataFile { path: root.to_path_buf(), group }]));
    }
    for base in [root.to_path_buf(), root.join(task)] {
        for pattern in patterns {
            let files = matching(&base, pattern)?;
            if !files.is_empty() {
                return Ok((base, files));
            }
        }
    }
    Err(not_found(root, task, patterns).into())
}

/// One file of a group, such as its examples, below the folder where the data was found.
pub(super) fn find_one(
    base: &Path,
    task: &str,
    patterns: &[String],
    group: Option<&str>,
) -> Result<PathBuf> {
    let names: Vec<String> =
        patterns.iter().map(|p| p.replace("{group}", group.unwrap_or_default())).collect();
    let found = names.iter().map(|name| base.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| not_found(base, task, &names).into())
}

/// Adds to an error about missing data where it can be had.
pub(super) fn with_source(error: crate::Error, source: &str) -> crate::Error {
    match error {
        crate::Error::Eval(EvalError::NoData { task, root, patterns, .. }) => {
            let source_of_data = source.to_owned();
            EvalError::NoData { task, root, patterns, source_of_data }.into()
        }
        other => other,
    }
}

fn not_found(root: &Path, task: &str, patterns: &[String]) -> EvalError {
    EvalError::NoData {
        task: task.into(),
        root: root.to_path_buf(),
        patterns: patterns.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", "),
        source_of_data: String::new(),
    }
}

fn matching(base: &Path, pattern: &str) -> Result<Vec<DataFile>> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let folder = base.join(folder);
    if !name.contains("{group}") {
        let path = folder.join(name);
        let found = path.is_file().then_some(DataFile { path, group: None });
        return Ok(found.into_iter().collect());
    }
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder).map_err(io("read", &folder))? {
            let entry = entry.map_err(io("read", &folder))?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            if let Some(group) = group_of(name, &file_name)
                && entry.path().is_file()
            {
                found.push(DataFile { path: entry.path(), group });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Whether a file is called as `pattern` says, and if so its group.
fn group_of(pattern: &str, name: &str) -> Option<Option<String>> {
    let Some((before, after)) = pattern.split_once("{group}") else {
        return (pattern == name).then_some(None);
    };
    let group = name.strip_prefix(before)?.strip_suffix(after)?;
    (!group.is_empty()).then(|| Some(group.to_owned()))
}

/// Reads the rows of a file; its name tells the format.
pub(super) fn read(file: &DataFile, data: &Data) -> Result<Rows> {
    let path = &file.path;
    #[cfg(feature = "parquet")]
    if crate::data::Format::of(path) == Some(crate::data::Format::Parquet) {
        let rows = crate::data::parquet_rows(path, MAX_FILE)?;
        let rows = rows.into_iter().enumerate().map(|(i, row)| (format!("#{}", i + 1), Ok(row)));
        return Ok(located(rows.collect(), file));
    }
    let text = read_text(path, MAX_FILE)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let found = match extension.as_deref() {
        Some("jsonl" | "ndjson") => json_lines(text),
        Some("json") => json(text, data, path)?,
        Some("csv") => separated(text, ',', data, path)?,
        Some("tsv" | "tab") => separated(text, '\t', data, path)?,
        Some("gz" | "xz" | "zip" | "tar" | "parquet") => {
            let what = "it is an archive: unpack or convert it first".into();
            return Err(
                EvalError::Format { path: path.clone(), format: "a data file", what }.into()
            );
        }
        _ => documents(text, data, path)?,
    };
    Ok(located(found, file))
}

/// The rows with their places and the group of their file.
fn located(found: Found, file: &DataFile) -> Rows {
    let rows = found.into_iter().map(|(at, fields)| {
        let place = format!("{}{at}", file.path.display());
        match fields {
            Ok(fields) => Ok(Row { fields, group: file.group.clone(), place }),
            Err(reason) => Err(BadRow { place, reason }),
        }
    });
    rows.collect()
}

/// `:line` or `#number`, and the columns.
type Found = Vec<(String, std::result::Result<Map<String, Value>, String>)>;

fn json_lines(text: &str) -> Found {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |line: &str| match parse_json(line.as_bytes()) {
        Ok(value) => object(value),
        Err(e) => Err(format!("not JSON ({e})")),
    };
    lines.map(|(i, line)| (format!(":{}", i + 1), row(line))).collect()
}

fn object(value: Value) -> std::result::Result<Map<String, Value>, String> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err("not a JSON object".into()),
    }
}

fn json(text: &str, data: &Data, path: &Path) -> Result<Found> {
    let invalid = |what| EvalError::Format { path: path.to_path_buf(), format: "JSON", what };
    let mut value = parse_json(text.as_bytes()).map_err(|e| invalid(e.to_string()))?;
    if let Some(records) = &data.records {
        value = value
            .get_mut(records)
            .map(Value::take)
            .ok_or_else(|| invalid(format!("it has no `{records}`")))?;
    }
    match value {
        Value::Array(rows) => Ok(rows
            .into_iter()
            .enumerate()
            .map(|(i, row)| (format!("#{}", i + 1), object(row)))
            .collect()),
        _ => Err(invalid("its rows are not an array".into()).into()),
    }
}

fn separated(text: &str, separator: char, data: &Data, path: &Path) -> Result<Found> {
    let invalid = |what: &str| EvalError::Format {
        path: path.to_path_buf(),
        format: if separator == ',' { "CSV" } else { "TSV" },
        what: what.to_owned(),
    };
    let mut records = csv::records(text, separator).into_iter().peekable();
    let first = match records.peek().map(|record| record.fields.clone()) {
        Some(first) => first,
        None => return Err(invalid("it is empty").into()),
    };
    let header = match (&data.columns, &first) {
        (None, Ok(first)) => Some(first.clone()),
        (None, Err(what)) => return Err(invalid(what).into()),
        (Some(columns), Ok(first)) => header(first, columns),
        (Some(_), Err(_)) => None,
    };
    if header.is_some() {
        records.next();
    }
    let columns = header.or_else(|| data.columns.clone()).unwrap_or_default();
    let row = |fields: Vec<String>| match fields.len() == columns.len() {
        false => Err(format!("{} fields instead of {}", fields.len(), columns.len())),
        true => Ok(columns.iter().cloned().zip(fields.into_iter().map(Value::String)).collect()),
    };
    Ok(records
        .map(|r| (format!(":{}", r.line), r.fields.map_err(Into::into).and_then(row)))
        .collect())
}

/// The names of the columns in the order of a file, where its first record is a header: it has all
/// the `columns`, in any order and among others, or two of them at their places while the others
/// are called otherwise.
fn header(first: &[String], columns: &[String]) -> Option<Vec<String>> {
    let same = |a: &str, b: &str| a.trim().to_lowercase() == b.trim().to_lowercase();
    if columns.iter().all(|column| first.iter().any(|name| same(name, column))) {
        let known = |name: &String| columns.iter().find(|column| same(name, column));
        return Some(first.iter().map(|name| known(name).unwrap_or(name).clone()).collect());
    }
    let at_their_places = first.iter().zip(columns).filter(|(name, column)| same(name, column));
    (first.len() == columns.len() && at_their_places.count() >= 2).then(|| columns.to_vec())
}

/// The documents of a text, with one column `text`.
fn documents(text: &str, data: &Data, path: &Path) -> Result<Found> {
    let mut starts = vec![0];
    if let Some(begin) = &data.begin {
        let invalid = |e: regex::Error| EvalError::Format {
            path: path.to_path_buf(),
            format: "text",
            what: format!("`data.begin` is no regex: {e}"),
        };
        let begin = Regex::new(begin).map_err(invalid)?;
        starts.extend(begin.find_iter(text).map(|found| found.start()));
        starts.dedup();
    }
    starts.push(text.len());
    let (mut line, mut found) = (1, Vec::new());
    for pair in starts.windows(2) {
        let document = &text[pair[0]..pair[1]];
        if !document.trim().is_empty() {
            let fields = Map::from_iter([("text".to_owned(), Value::from(document))]);
            found.push((format!(":{line}"), Ok(fields)));
        }
        line += document.matches('\n').count();
    }
    Ok(found)
}

/// Adds the lines of a file of labels as the column `label`.
pub(super) fn add_labels(rows: &mut Rows, labels: &Path) -> Result<()> {
    let text = read_text(labels, MAX_FILE)?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() != rows.len() {
        let what = format!("it has {} labels for {} rows", lines.len(), rows.len());
        let path = labels.to_path_buf();
        return Err(EvalError::Format { path, format: "labels", what }.into());
    }
    for (row, label) in rows.iter_mut().zip(lines) {
        if let Ok(row) = row {
            row.fields.insert("label".into(), Value::from(label.trim()));
        }
    }
    Ok(())
}
