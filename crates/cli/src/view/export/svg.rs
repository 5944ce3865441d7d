//! The recording as an SVG animated by its own style sheet: sharp at any size, no script, loops.
//!
//! Every cell keeps the place of its final text, so nothing moves while masks turn into tokens.
//! Texts and masks that come and go together share one group and one `@keyframes` rule, so the file
//! grows with the tokens and not with tokens times steps.

use std::{collections::BTreeMap, fmt::Write};

use super::{Film, FilmCell, escape, masks};
use crate::view::{
    layout::{self, Line, Run},
    palette,
};

const FONT: f64 = 14.0;
/// Advance of a monospaced character at that size; `textLength` makes every font keep to it.
const COLUMN: f64 = 8.4;
const ROW: f64 = 22.0;
const MARGIN: f64 = 20.0;
/// Height of the progress bar and the legend.
const FOOTER: f64 = 34.0;
/// The card, its edge (which sets it off from a dark page), masks, and the prompt.
const CARD: &str = "#12151c";
const EDGE: &str = "#30363d";
const MASK: &str = "#3a4152";
const GIVEN: &str = "#9aa4b2";
/// How long the finished text stays before the loop begins again.
const REST_MS: u64 = 3000;
/// How long new tokens stay bold, in frames.
const FRESH: usize = 1;

/// The SVG of a film with `delay_ms` between two steps and lines of `columns` columns.
pub fn svg(film: &Film, delay_ms: u64, columns: usize) -> String {
    let last = |cell: &'_ FilmCell| cell.spans.last().map_or("░".into(), |s| s.text.clone());
    let texts: Vec<String> = film.cells.iter().map(last).collect();
    let lines = layout::lines(&texts, columns);
    let groups = groups(film, &lines);
    let clock = Clock { frame_ms: delay_ms.max(1), frames: film.steps as u64 };

    let widest = lines.iter().flatten().map(|r| r.column + r.width).max().unwrap_or(0);
    let width = 2.0 * MARGIN + widest.max(40) as f64 * COLUMN;
    let height = 2.0 * MARGIN + lines.len() as f64 * ROW + FOOTER;
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img">"#
    );
    let _ = writeln!(out, "<title>{}</title>", escape(&film.title));
    let _ = writeln!(out, "<style>\n{}{}</style>", style(&clock), rules(&clock, groups.keys()));
    let _ = writeln!(
        out,
        r#"<rect x="0.5" y="0.5" width="{:.0}" height="{:.0}" rx="10" fill="{CARD}" stroke="{EDGE}"/>"#,
        width - 1.0,
        height - 1.0,
    );
    for (life, body) in &groups {
        let _ = writeln!(out, "<g class=\"{}\">{body}</g>", life.class());
    }
    out.push_str(&footer(width, height));
    out.push_str("</svg>\n");
    out
}

/// When the members of a group are visible, and whether they are masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Life {
    mask: bool,
    from: usize,
    until: Option<usize>,
}

impl Life {
    fn name(&self) -> String {
        let kind = if self.mask { 'm' } else { 't' };
        let until = self.until.map_or(String::new(), |u| format!("-{u}"));
        format!("{kind}{}{until}", self.from)
    }

    /// Visible from the first frame to the last.
    fn is_constant(&self) -> bool {
        self.from == 0 && self.until.is_none()
    }

    /// Without animation (reduced motion, or a viewer without CSS) the last frame is shown.
    fn class(&self) -> String {
        let rest = if self.until.is_some() { "past " } else { "" };
        format!("{rest}{}", self.name())
    }
}

/// The drawing of every life, all cells of that life together.
fn groups(film: &Film, lines: &[Line]) -> BTreeMap<Life, String> {
    let mut groups = BTreeMap::<Life, String>::new();
    let mut before = None;
    for (row, line) in lines.iter().enumerate() {
        let y = MARGIN + (row as f64 + 0.75) * ROW;
        for runs in line.chunk_by(|a, b| [a, b].iter().all(|r| film.cells[r.cell].is_empty())) {
            let run = &runs[0];
            let cell = &film.cells[run.cell];
            if cell.is_empty() {
                let life = Life { mask: true, from: 0, until: None };
                groups.entry(life).or_default().push_str(&masks_for_good(runs, y));
                continue;
            }
            // What stood in a cell before is squeezed into the place where its last text begins.
            let is_first = before.replace(run.cell) != Some(run.cell);
            let last = cell.spans.len() - 1;
            let shown = if is_first { &cell.spans[..] } else { &cell.spans[last..] };
            for (from, until) in masks(shown) {
                let life = Life { mask: true, from, until };
                groups.entry(life).or_default().push_str(&mask(run, y));
            }
            for (i, span) in shown.iter().enumerate() {
                let life = Life { mask: false, from: span.from, until: span.until };
                let fill = span.confidence.map_or(GIVEN.into(), palette::hex);
                let text = if i + 1 == shown.len() { &run.text } else { &span.text };
                groups.entry(life).or_default().push_str(&token(run, text, y, &fill));
            }
        }
    }
    groups
}

/// Neighbouring masks that nothing takes the place of: one dashed line, a dash for each.
fn masks_for_good(runs: &[Run], y: f64) -> String {
    let columns: usize = runs.iter().map(|run| run.width).sum();
    format!(
        r##"<path d="M{:.1} {:.1}h{:.1}" stroke="{MASK}" stroke-width="{:.1}" stroke-dasharray="{:.1} 1.2"/>"##,
        MARGIN + runs[0].column as f64 * COLUMN + 0.6,
        y - 0.26 * ROW,
        columns as f64 * COLUMN - 1.2,
        0.72 * ROW,
        COLUMN - 1.2,
    )
}

/// The text of a run. Spaces at its ends are left out, because renderers drop them anyway.
fn token(run: &Run, text: &str, y: f64, fill: &str) -> String {
    let word = text.trim();
    if word.is_empty() {
        return String::new();
    }
    let lead = layout::width(&text[..text.len() - text.trim_start().len()]);
    let width = layout::width(word).min(run.width.saturating_sub(lead)).max(1);
    format!(
        r#"<text x="{:.1}" y="{y:.1}" textLength="{:.1}" lengthAdjust="spacingAndGlyphs" fill="{fill}">{}</text>"#,
        MARGIN + (run.column + lead) as f64 * COLUMN,
        width as f64 * COLUMN,
        escape(word),
    )
}

/// A mask as wide as what it hides, its leading space left open so that words stay apart.
fn mask(run: &Run, y: f64) -> String {
    let lead = run.text.len() - run.text.trim_start_matches(' ').len();
    let lead = if lead < run.width { lead } else { 0 };
    format!(
        r##"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2" fill="{MASK}"/>"##,
        MARGIN + (run.column + lead) as f64 * COLUMN + 0.6,
        y - 0.62 * ROW,
        (run.width - lead) as f64 * COLUMN - 1.2,
        0.72 * ROW,
    )
}

/// Frames as shares of the loop.
struct Clock {
    frame_ms: u64,
    frames: u64,
}

impl Clock {
    fn total_ms(&self) -> u64 {
        self.frames.saturating_add(1).saturating_mul(self.frame_ms).saturating_add(REST_MS)
    }

    fn percent(&self, frame: usize) -> f64 {
        100.0 * (frame as f64 * self.frame_ms as f64) / self.total_ms() as f64
    }
}

/// The rule for all groups is the weakest there can be, because each life's class adds its
/// `animation-name` to it.
fn style(clock: &Clock) -> String {
    let total = clock.total_ms();
    let end = clock.percent(clock.frames as usize);
    format!(
        "text{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;\
         font-size:{FONT}px;white-space:pre}}\n\
         .past{{visibility:hidden}}.legend text{{font-size:11px}}\n\
         g{{animation:{total}ms step-end infinite}}\n\
         .bar{{transform-origin:{MARGIN}px 0;animation:bar {total}ms linear infinite}}\n\
         @keyframes bar{{0%{{transform:scaleX(0)}}{end:.3}%,100%{{transform:scaleX(1)}}}}\n\
         @media (prefers-reduced-motion:reduce){{g,.bar{{animation:none!important}}}}\n"
    )
}

/// One `@keyframes` rule for each life, and the class that uses it.
fn rules<'a>(clock: &Clock, lives: impl Iterator<Item = &'a Life>) -> String {
    let mut css = String::new();
    for life in lives.filter(|l| !l.is_constant()) {
        let name = life.name();
        let _ = write!(css, ".{name}{{animation-name:{name}}}@keyframes {name}{{");
        if life.from > 0 {
            css.push_str("0%{visibility:hidden}");
        }
        let at = clock.percent(life.from);
        if life.mask {
            let _ = write!(css, "{at:.3}%{{visibility:visible}}");
        } else {
            let later = clock.percent(life.from + FRESH);
            let _ = write!(css, "{at:.3}%{{visibility:visible;font-weight:700}}");
            let _ = write!(css, "{later:.3}%{{font-weight:400}}");
        }
        match life.until {
            Some(until) => {
                let _ = write!(css, "{:.3}%,100%{{visibility:hidden}}", clock.percent(until));
            }
            None => css.push_str("100%{visibility:visible}"),
        }
        css.push_str("}\n");
    }
    css
}

/// The progress bar above the legend: prompt, mask, and the colours of confidence from 0 to 1.
fn footer(width: f64, height: f64) -> String {
    let stops: String = palette::stops()
        .map(|(x, color)| format!(r#"<stop offset="{x}" stop-color="{color}"/>"#))
        .collect();
    let (y, right) = (height - MARGIN, width - MARGIN);
    let (bar, track) = (y - 22.0, width - 2.0 * MARGIN);
    let (ramp, at) = (y - 7.0, right - 91.0);
    format!(
        r##"<defs><linearGradient id="ramp">{stops}</linearGradient></defs>
<rect x="{MARGIN}" y="{bar:.1}" width="{track:.1}" height="2" rx="1" fill="{EDGE}"/>
<rect class="bar" x="{MARGIN}" y="{bar:.1}" width="{track:.1}" height="2" rx="1" fill="{GIVEN}"/>
<g class="legend" fill="{GIVEN}"><text x="{MARGIN}" y="{y:.1}">prompt</text>
<rect x="{:.1}" y="{:.1}" width="14" height="10" rx="2" fill="{MASK}"/><text x="{:.1}" y="{y:.1}">masked</text>
<text x="{:.1}" y="{y:.1}" text-anchor="end">confidence 0</text>
<rect x="{at:.1}" y="{ramp:.1}" width="80" height="6" rx="3" fill="url(#ramp)"/>
<text x="{right:.1}" y="{y:.1}" text-anchor="end">1</text></g>
"##,
        MARGIN + 58.0,
        y - 9.0,
        MARGIN + 78.0,
        at - 6.0,
    )
}
