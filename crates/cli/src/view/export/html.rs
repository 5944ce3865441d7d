//! The recording as one HTML file: a slider, a play button, no network.

use llada::diffusion::trace;
use serde_json::{Value, json};

use super::{Film, escape};
use crate::view::palette;

/// The page of a film with `delay_ms` between two steps.
pub fn html(film: &Film, delay_ms: u64) -> String {
    let last = |cell: &super::FilmCell| cell.spans.last().map_or("░".into(), |s| s.text.clone());
    let text: String = film.cells.iter().map(last).collect();
    let stops: Vec<String> = palette::stops().map(|(_, color)| color).collect();
    // One pass over the page, so that no inserted text is searched for the next mark.
    trace::FILM
        .split("@@")
        .map(|part| match part {
            "TITLE" => escape(&film.title),
            "TEXT" => escape(&text),
            "RAMP" => stops.join(","),
            "DATA" => data(film, delay_ms),
            page => page.to_owned(),
        })
        .collect()
}

/// The film as JSON that may stand in a `<script>` element.
fn data(film: &Film, delay_ms: u64) -> String {
    let cells: Vec<Vec<Value>> = film
        .cells
        .iter()
        .map(|cell| {
            cell.spans
                .iter()
                .map(|s| {
                    let text: String = s.text.chars().map(visible).collect();
                    let color = s.confidence.map(palette::hex);
                    json!([s.from, s.until, text, s.confidence, color])
                })
                .collect()
        })
        .collect();
    let json = json!({ "steps": film.steps, "delay": delay_ms.max(1), "cells": cells }).to_string();
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn visible(c: char) -> char {
    if c == '\n' { c } else { crate::term::picture(c) }
}
