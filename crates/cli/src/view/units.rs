//! Numbers with units, as people read them.

use llada::diffusion::Settings;

use super::layout;
use crate::term::visible_line;

/// Bytes in binary units with one decimal.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A whole number with commas between thousands.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many things of a name whose plural ends in s: `1 row`, `2,000 rows`.
pub fn counted(n: u64, name: &str) -> String {
    format!("{} {name}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// A count in the style of model names: `8.0B`, `110.3M`, `12.0k`.
pub fn count(n: u64) -> String {
    let value = n as f64;
    match n {
        1_000_000_000.. => format!("{:.1}B", value / 1e9),
        1_000_000.. => format!("{:.1}M", value / 1e6),
        1_000.. => format!("{:.1}k", value / 1e3),
        _ => n.to_string(),
    }
}

/// A duration: `812ms`, `4.2s`, `3m07s`, `1h06m`, `2d03h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    if seconds < 1.0 {
        return format!("{:.0}ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1}s");
    }
    let s = seconds.round() as u64;
    let (minutes, hours, days) = (s / 60, s / 3_600, s / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", s % 60),
        (0, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Settings of a sampler in one line: `steps 64, temperature 0.7`.
pub fn settings(settings: &Settings) -> String {
    let listed = settings.list().into_iter().map(|(name, value)| format!("{name} {value}"));
    listed.collect::<Vec<_>>().join(", ")
}

/// Names in one column, values in the next.
pub fn table(rows: &[(&str, String)]) -> String {
    let widest = rows.iter().map(|(name, _)| layout::width(name)).max().unwrap_or(0);
    let row = |(name, value): &(&str, String)| {
        let gap = " ".repeat(widest - layout::width(name) + 2);
        format!("{}{gap}{}", visible_line(name), visible_line(value))
    };
    rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Rows in columns, each as wide as its widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let wide = |column: usize| rows.iter().map(|row| layout::width(&row[column])).max();
    let widths: [usize; N] = std::array::from_fn(|column| wide(column).unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let padded =
            cells.map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide - layout::width(cell))));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_at_their_borders() {
        assert_eq!([0, 1023, 1024, 1536 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 2000].map(|n| counted(n, "row")), ["0 rows", "1 row", "2,000 rows"]);
        assert_eq!([999, 12_000, 8_015_581_184].map(count), ["999", "12.0k", "8.0B"]);
        assert_eq!(
            [0.8124, 4.2, 59.96, 187.0, 3960.0, 183_600.0, f64::NAN].map(duration),
            ["812ms", "4.2s", "1m00s", "3m07s", "1h06m", "2d03h", "?"]
        );
    }

    #[test]
    fn tables_align_wide_names() {
        assert_eq!(table(&[("a", "1".into()), ("日本", "2".into())]), "a     1\n日本  2");
        let rows = [["日本", "b", "c"], ["a", "", "dd"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "日本  b  c\na        dd");
    }
}
