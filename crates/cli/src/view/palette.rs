//! Confidence as a colour.

use crate::term::Colors;

/// Violet, blue, teal, green, yellow: the order of viridis, with its dark end lifted so that text
/// stays readable on black. Lightness grows with confidence, so it works without colour vision.
const RAMP: [[u8; 3]; 5] =
    [[122, 104, 190], [84, 138, 205], [45, 172, 162], [120, 208, 92], [253, 231, 37]];

/// The colour of a confidence in 0..=1; values outside and NaN are drawn as the nearest end.
pub fn rgb(confidence: f32) -> [u8; 3] {
    let x = if confidence.is_nan() { 0.0 } else { confidence.clamp(0.0, 1.0) };
    let at = x * (RAMP.len() - 1) as f32;
    let left = (at as usize).min(RAMP.len() - 2);
    let share = at - left as f32;
    std::array::from_fn(|i| {
        let (a, b) = (f32::from(RAMP[left][i]), f32::from(RAMP[left + 1][i]));
        (a + (b - a) * share).round() as u8
    })
}

/// `#rrggbb` of a confidence.
pub fn hex(confidence: f32) -> String {
    let [r, g, b] = rgb(confidence);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// The ramp as the stops of a gradient.
pub fn stops() -> impl Iterator<Item = (f32, String)> {
    (0..RAMP.len()).map(|i| {
        let x = i as f32 / (RAMP.len() - 1) as f32;
        (x, hex(x))
    })
}

/// The parameters of an SGR escape sequence (`ESC [ … m`) for a confidence; empty without colours.
/// With sixteen colours, the three classes of the reference's demo: below 0.3, below 0.7, above.
pub fn sgr(confidence: f32, colors: Colors) -> String {
    match colors {
        Colors::None => String::new(),
        Colors::Basic if confidence < 0.3 => "31".into(),
        Colors::Basic if confidence < 0.7 => "33".into(),
        Colors::Basic => "32".into(),
        Colors::True => {
            let [r, g, b] = rgb(confidence);
            format!("38;2;{r};{g};{b}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_is_total_and_grows_lighter() {
        let lightness = |x: f32| {
            let [r, g, b] = rgb(x).map(f32::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        for i in 0..100 {
            assert!(lightness((i + 1) as f32 / 100.0) >= lightness(i as f32 / 100.0) - 0.5, "{i}");
        }
        assert_eq!(rgb(f32::NAN), RAMP[0]);
        assert_eq!(rgb(-1.0), RAMP[0]);
        assert_eq!(rgb(f32::INFINITY), RAMP[4]);
        assert_eq!(hex(1.0), "#fde725");
    }

    #[test]
    fn sgr_follows_the_terminal() {
        assert_eq!(sgr(0.9, Colors::None), "");
        assert_eq!(sgr(0.1, Colors::Basic), "31");
        assert_eq!(sgr(0.69, Colors::Basic), "33");
        assert_eq!(sgr(1.0, Colors::True), "38;2;253;231;37");
    }
}
