//! `report.html`: a run on one page that needs nothing but itself.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

/// A run's curves as a self-contained page, from the text of its `metrics.jsonl` and the recipe.
pub fn render(metrics: &str, recipe: &str) -> String {
    let lines: Vec<Value> = metrics.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let of = |kind: &str| -> Vec<&Value> { lines.iter().filter(|l| l["kind"] == kind).collect() };
    let (train, validation) = (of("train"), of("validation"));
    let curve = |lines: &[&Value], key: &str| -> Points {
        lines.iter().filter_map(|l| Some((l["step"].as_f64()?, l[key].as_f64()?))).collect()
    };

    let mut page = String::from(HEAD);
    page.push_str(&summary(train.last().copied(), validation.last().copied()));
    let loss = Chart {
        title: "Loss",
        x: "step",
        y: if train.iter().any(|l| l["reward"].is_number() || l["margin"].is_number()) {
            "loss of the objective"
        } else {
            "nats per token"
        },
        series: vec![
            ("batch", curve(&train, "loss")),
            ("smoothed", curve(&train, "loss_ema")),
            ("validation", curve(&validation, "nll")),
        ],
    };
    let rate = Chart {
        title: "Learning rate",
        x: "step",
        y: "factor on the update",
        series: vec![("rate", curve(&train, "learning_rate"))],
    };
    let norm = Chart {
        title: "Gradient norm before clipping",
        x: "step",
        y: "norm",
        series: vec![("norm", curve(&train, "grad_norm"))],
    };
    let masked = Chart {
        title: "Cross-entropy by masked fraction",
        x: "fraction of the sequence, or block, that is masked",
        y: "nats per masked token",
        series: match (validation.first(), validation.last()) {
            (Some(first), Some(last)) if validation.len() > 1 => {
                vec![("first validation", buckets(first)), ("last validation", buckets(last))]
            }
            (Some(only), _) => vec![("validation", buckets(only))],
            _ => Vec::new(),
        },
    };
    let measured = MEASURED.map(|(key, title, y)| Chart {
        title,
        x: "step",
        y,
        series: vec![("batch", curve(&train, key)), ("validation", curve(&validation, key))],
    });
    for chart in [loss].into_iter().chain(measured).chain([masked, rate, norm]) {
        page.push_str(&chart.svg());
    }
    for (title, points) in tasks(&of("task")) {
        let (title, series) = (escape(&title), vec![("value", points)]);
        page.push_str(&Chart { title: &title, x: "step", y: "metric of the task", series }.svg());
    }
    page.push_str(&table(&validation));
    let _ = writeln!(page, "<h2>Recipe</h2><pre>{}</pre></main></body></html>", escape(recipe));
    page
}

/// The curve of each metric of each task, under both names.
fn tasks(lines: &[&Value]) -> BTreeMap<String, Points> {
    let mut curves = BTreeMap::<String, Points>::new();
    for line in lines {
        let metric = line["metric"].as_str().unwrap_or_default().trim_end_matches(",none");
        let title = format!("{}: {metric}", line["task"].as_str().unwrap_or_default());
        let point = line["step"].as_f64().zip(line["value"].as_f64());
        curves.entry(title).or_default().extend(point);
    }
    curves
}

/// What objectives tell besides their loss, as a curve each.
const MEASURED: [(&str, &str, &str); 7] = [
    ("reward", "Reward", "mean over completions"),
    ("flat_groups", "Prompts whose completions have the same reward", "share"),
    ("completion_tokens", "Length of completions", "tokens"),
    ("accuracy", "Pairs in which the preferred response gained", "share"),
    ("margin", "Margin", "difference from the reference, times beta"),
    ("kl", "Divergence from the reference", "nats per token"),
    ("clipped", "Ratios that are clipped", "share"),
];

type Points = Vec<(f64, f64)>;

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Training run</title><style>
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--line:#8886;--s0:#9aa7b8;--s1:#0b62a8;--s2:#b3440e}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181c;--s0:#5d6b7d;--s1:#6cb6f5;--s2:#f59a5f}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:56rem;margin:auto;padding:1.5rem}
figure{margin:2rem 0}figcaption{font-weight:600}figcaption small{font-weight:400;opacity:.75}
svg{width:100%;height:auto;font-size:12px;overflow:visible}svg text{fill:var(--ink)}
.grid{stroke:var(--line)}.s{fill:none;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1);stroke-dasharray:none}.s2{stroke:var(--s2);stroke-dasharray:7 3}
table{border-collapse:collapse}th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid var(--line)}
pre{overflow:auto;border:1px solid var(--line);padding:1rem}
</style></head><body><main><h1>Training run</h1>
";

fn summary(train: Option<&Value>, validation: Option<&Value>) -> String {
    let mut parts = Vec::new();
    if let Some(line) = train {
        let step = format!("step {} of {}", line["step"], line["steps"]);
        parts.extend([step, format!("{} tokens", millions(line["total_tokens"].as_f64()))]);
        parts.extend(line["loss_ema"].as_f64().map(|x| format!("smoothed loss {x:.4}")));
    }
    if let Some(line) = validation {
        parts.extend(line["nll"].as_f64().map(|x| format!("validation {x:.4} nats per token")));
        parts.extend(line["bits_per_byte"].as_f64().map(|x| format!("{x:.4} bits per byte")));
    }
    format!("<p>{}</p>\n", parts.join(" · "))
}

/// A count that may have many digits, such as `2.29 million`.
fn millions(count: Option<f64>) -> String {
    match count {
        Some(n) if n >= 1e6 => format!("{:.2} million", n / 1e6),
        Some(n) => format!("{n}"),
        None => "?".into(),
    }
}

/// Every validation as text: what the curves show, for readers that see no curves.
fn table(validation: &[&Value]) -> String {
    if validation.is_empty() {
        return String::new();
    }
    let of_text = [
        ("nll", "nats per token"),
        ("standard_error", "standard error"),
        ("bits_per_byte", "bits per byte"),
    ];
    let measured = MEASURED.map(|(key, title, _)| (key, title));
    let mut columns = [&of_text[..], &measured].concat();
    columns.retain(|(key, _)| validation.iter().any(|line| line[key].is_number()));
    let heads: String =
        columns.iter().map(|(_, title)| format!("<th scope=\"col\">{title}</th>")).collect();
    let mut html = format!(
        "<h2>Validation</h2><table><thead><tr><th scope=\"col\">step</th>{heads}</tr></thead><tbody>\n"
    );
    for line in validation {
        let number = |key: &str| line[key].as_f64().map_or("–".into(), |x| format!("{x:.4}"));
        let cells: String =
            columns.iter().map(|(key, _)| format!("<td>{}</td>", number(key))).collect();
        let _ = writeln!(html, "<tr><td>{}</td>{cells}</tr>", line["step"]);
    }
    html + "</tbody></table>\n"
}

fn buckets(line: &Value) -> Points {
    let Some(list) = line["buckets"].as_array() else { return Vec::new() };
    let half = 0.5 / list.len().max(1) as f64;
    list.iter().filter_map(|b| Some((b["from"].as_f64()? + half, b["nll"].as_f64()?))).collect()
}

/// Lines on a plane.
struct Chart<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    series: Vec<(&'a str, Points)>,
}

/// Size of a chart, and its margins: left, top, right, bottom.
const SIZE: (f64, f64) = (800.0, 300.0);
const MARGIN: [f64; 4] = [64.0, 12.0, 16.0, 44.0];

impl Chart<'_> {
    /// The chart as a figure; nothing when there are no points.
    fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let (Some(xs), Some(ys)) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)))
        else {
            return String::new();
        };
        let [left, top, right, bottom] = MARGIN;
        let (width, height) = (SIZE.0 - left - right, SIZE.1 - top - bottom);
        let x = |v: f64| left + (v - xs.0) / (xs.1 - xs.0) * width;
        let y = |v: f64| top + (ys.1 - v) / (ys.1 - ys.0) * height;

        let mut svg = format!(
            "<figure><figcaption>{} <small>{}</small></figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" \
             aria-label=\"{}\">\n",
            self.title,
            self.y,
            SIZE.0,
            SIZE.1,
            self.description()
        );
        for (tick, label) in ticks(ys) {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{left} {at:.1}h{width}\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                at + 4.0
            );
        }
        let base = top + height;
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{left} {base:.1}h{width}\"/>");
        for (tick, label) in ticks(xs) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                x(tick),
                base + 16.0
            );
        }
        // With one curve the colour of the main series, with more a colour for each.
        let first = usize::from(self.series.len() < 3);
        for (i, (name, points)) in self.series.iter().enumerate() {
            let class = first + i;
            let path: Vec<String> =
                thin(points).iter().map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1))).collect();
            if !path.is_empty() {
                // The last stroke has no length: it makes a single point a dot.
                let _ = writeln!(svg, "<path class=\"s s{class}\" d=\"M{}h0\"/>", path.join("L"));
            }
            let at = left + 10.0 + 150.0 * i as f64;
            let _ = writeln!(
                svg,
                "<path class=\"s s{class}\" d=\"M{at} {0}h24\"/><text x=\"{1}\" y=\"{2}\">{name}\
                 </text>",
                SIZE.1 - 8.0,
                at + 30.0,
                SIZE.1 - 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text></svg></figure>",
            left + width,
            SIZE.1 - 4.0,
            self.x,
        );
        svg
    }

    /// The curves in words.
    fn description(&self) -> String {
        let mut text = format!("{}: {} by {}.", self.title, self.y, self.x);
        for (name, points) in &self.series {
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                let _ = write!(
                    text,
                    " {name}: {:.4} at {} to {:.4} at {}.",
                    first.1, first.0, last.1, last.0
                );
            }
        }
        text
    }
}

/// Smallest and largest of finite numbers, a little apart where they are equal.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let range = values.filter(|v| v.is_finite()).fold(None, |range: Option<(f64, f64)>, v| {
        range.map_or(Some((v, v)), |(low, high)| Some((low.min(v), high.max(v))))
    })?;
    let (low, high) = range;
    let room = if low == high { low.abs().max(1.0) * 0.05 } else { 0.0 };
    Some((low - room, high + room))
}

/// About five round numbers in a range, with their labels.
fn ticks((low, high): (f64, f64)) -> Vec<(f64, String)> {
    let raw = (high - low) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|s| *s >= 0.999 * raw);
    let step = step.unwrap_or(raw);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let count = ((high / step).floor() - (low / step).ceil()).max(0.0) as usize;
    (0..=count.min(20))
        .map(|i| ((low / step).ceil() + i as f64) * step)
        .map(|v| (v, if digits > 4 { format!("{v:.1e}") } else { format!("{v:.digits$}") }))
        .collect()
}

/// At most about a thousand points of a curve: as many as a screen shows.
fn thin(points: &Points) -> Points {
    let stride = points.len().div_ceil(1000).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.iter().enumerate().filter(|(i, _)| i % stride == 0 || *i == last);
    kept.map(|(_, p)| *p).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_becomes_one_page() {
        let mut metrics = String::new();
        for step in 1..=3000 {
            let _ = writeln!(
                metrics,
                "{{\"kind\":\"train\",\"step\":{step},\"steps\":3000,\"loss\":{},\
                 \"loss_ema\":2.0,\"learning_rate\":0.001,\"grad_norm\":null,\"total_tokens\":9}}",
                3.0 / f64::from(step)
            );
        }
        metrics.push_str(
            "{\"kind\":\"validation\",\"step\":3000,\"nll\":1.5,\"standard_error\":0.1,\
             \"bits_per_byte\":2.1,\"buckets\":[{\"from\":0.0,\"nll\":1.0,\"tokens\":3},\
             {\"from\":0.5,\"nll\":null,\"tokens\":0}]}\nnot json\n",
        );
        let page = render(&metrics, "[data]\npath = \"<a>\"\n");
        assert_eq!(page.matches("<svg").count(), 3, "no chart without points");
        assert!(page.contains("d=\"M64.0 "), "curves begin at the left");
        assert_eq!([Some(9.0), Some(2_288_028.0), None].map(millions), ["9", "2.29 million", "?"]);
        assert!(page.contains("step 3000 of 3000") && page.contains("&lt;a&gt;"));
        assert!(page.contains("<td>1.5000</td>"));
        assert!(!page.contains("NaN") && !page.contains("http"));
        assert!(page.len() < 60_000, "{}", page.len());
    }

    #[test]
    fn what_an_objective_tells_has_a_curve() {
        let line = "{\"kind\":\"train\",\"step\":1,\"steps\":2,\"loss\":-0.1,\"reward\":0.25}\n\
                    {\"kind\":\"validation\",\"step\":1,\"nll\":null,\"reward\":0.5}\n";
        let page = render(line, "");
        assert!(page.contains("Reward") && page.contains("loss of the objective"));
        assert!(!page.contains("Margin") && !page.contains("null"), "{page}");
    }

    #[test]
    fn an_empty_run_has_a_page_too() {
        assert!(render("", "").ends_with("</html>\n"));
    }

    #[test]
    fn ticks_are_round_and_within() {
        let labels = |range| ticks(range).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(labels((0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels((1.0, 3000.0)), ["1000", "2000", "3000"]);
        assert_eq!(labels((0.0, 1e-5)).len(), 6);
        assert_eq!(range([2.0, 2.0].into_iter()), Some((1.9, 2.1)));
        assert_eq!(range([f64::NAN].into_iter()), None);
    }
}
