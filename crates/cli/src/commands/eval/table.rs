//! Tables of results.

use llada::eval::report::{Failed, Finished};

use crate::{term::visible_line, view::layout};

/// Columns of text, as wide as their widest cell.
pub fn columns(rows: &[Vec<String>]) -> String {
    let visible = |row: &Vec<String>| row.iter().map(|cell| visible_line(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(visible).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter().filter_map(|row| row.get(i)).map(|cell| layout::width(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(layout::width(cell))))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The results: a line for each metric of each task, and of each group below it; and why others
/// have none.
pub fn results(finished: &[Finished], failed: &[Failed]) -> String {
    let header = ["task", "version", "examples", "rows", "filter", "metric", "value", "± stderr"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for task in finished {
        let (name, version) = (&task.prepared.task.name, task.prepared.task.version);
        for line in task.lines() {
            let name =
                line.group.as_ref().map_or_else(|| name.clone(), |group| format!("- {group}"));
            let mut first = vec![
                name,
                version.to_string(),
                task.prepared.shots.to_string(),
                line.rows.to_string(),
            ];
            // In the order of the task, not of the alphabet.
            for metric in task.prepared.task.metrics() {
                let Some(estimate) = line.estimates.get(&metric) else { continue };
                let (metric, filter) = metric.split_once(',').unwrap_or((&metric, "none"));
                let error = estimate.standard_error.or(estimate.linear_error);
                let error = error.map_or("n/a".into(), number);
                let cells = [filter.into(), metric.into(), number(estimate.value), error];
                rows.push(first.drain(..).chain(cells).collect());
                first = vec![String::new(); 4];
            }
        }
    }
    let mut lines = vec![columns(&rows)];
    lines.extend(failed.iter().map(|f| visible_line(&format!("{}  failed: {}", f.task, f.reason))));
    lines.join("\n")
}

/// Four digits behind the point, or an exponent where they would not fit.
fn number(x: f64) -> String {
    if x.abs() >= 1e6 { format!("{x:.3e}") } else { format!("{x:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_wide_cells() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        assert_eq!(columns(&[row(["a", "1"]), row(["日本", ""])]), "a     1\n日本");
        assert_eq!([0.5, 1234.5, 2e7].map(number), ["0.5000", "1234.5000", "2.000e7"]);
    }
}
