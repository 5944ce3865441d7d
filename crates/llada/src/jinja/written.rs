//! How Python's formats write one value: width, sign, precision, digits.

use minijinja::{Error, State, Value};

use super::{arguments::whole, charge, fail};

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub(super) fill: char,
    pub(super) align: Option<char>,
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) zeros: bool,
    pub(super) width: usize,
    pub(super) group: Option<char>,
    pub(super) precision: Option<usize>,
    /// The letter at the end: `d`, `f`, `s` and so on.
    pub(super) letter: Option<char>,
}

pub(super) const PLAIN: Spec = Spec {
    fill: ' ',
    align: None,
    sign: None,
    alternate: false,
    zeros: false,
    width: 0,
    group: None,
    precision: None,
    letter: None,
};
/// The most digits after a point; Rust has a limit of 65535.
const MOST_DIGITS: usize = 10_000;

/// Characters of a text, of which any number can be looked at before they are read.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn next_if(&mut self, is: impl Fn(char) -> bool) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| is(*c))?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    pub(super) fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    pub(super) fn number(&mut self) -> Result<Option<usize>, Error> {
        match self.take_while(|c| c.is_ascii_digit()) {
            "" => Ok(None),
            digits => match digits.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => fail("a width that is too large"),
            },
        }
    }
}

pub(super) fn cut(text: &str, most: Option<usize>) -> String {
    text.chars().take(most.unwrap_or(usize::MAX)).collect()
}

pub(super) fn at_least(digits: &str, least: Option<usize>) -> String {
    format!(
        "{}{digits}",
        "0".repeat(least.unwrap_or(0).min(MOST_DIGITS).saturating_sub(digits.len()))
    )
}

pub(super) fn integer(value: &Value) -> Result<i128, Error> {
    match value.is_integer() {
        true => i128::try_from(value.clone()),
        false => whole(value).map(i128::from),
    }
}

pub(super) fn truncated(x: f64) -> Result<i128, Error> {
    match x.is_finite() && x.abs() < 1e38 {
        true => Ok(x.trunc() as i128),
        false => fail("a float that is no whole number"),
    }
}

pub(super) fn prefix(letter: char) -> &'static str {
    match letter {
        'b' => "0b",
        'o' => "0o",
        'X' => "0X",
        _ => "0x",
    }
}

pub(super) fn radix(n: u128, letter: char) -> String {
    match letter {
        'b' => format!("{n:b}"),
        'o' => format!("{n:o}"),
        'X' => format!("{n:X}"),
        _ => format!("{n:x}"),
    }
}

pub(super) fn grouped(digits: &str, separator: Option<char>) -> String {
    let Some(separator) = separator else { return digits.to_owned() };
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

/// A float that is not negative, in one of the forms `e`, `f` and `g`.
pub(super) fn float(
    x: f64,
    letter: char,
    precision: usize,
    alternate: bool,
) -> Result<String, Error> {
    if precision > MOST_DIGITS {
        return fail(format!("more than {MOST_DIGITS} digits after the point"));
    }
    if !x.is_finite() {
        let text = super::text::float(x);
        return Ok(if letter.is_uppercase() { text.to_uppercase() } else { text });
    }
    let scientific = |x: f64, precision: usize| {
        let written = format!("{x:.precision$e}");
        let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
        let number: i32 = exponent.parse().unwrap_or(0);
        (digits.to_owned(), number)
    };
    let with_exponent = |digits: &str, exponent: i32| {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    };
    let text = match letter.to_ascii_lowercase() {
        'f' => format!("{x:.precision$}"),
        'e' => {
            let (digits, exponent) = scientific(x, precision);
            with_exponent(&digits, exponent)
        }
        _ => {
            let precision = precision.max(1);
            let (digits, exponent) = scientific(x, precision - 1);
            let short = |digits: &str| match digits.contains('.') && !alternate {
                true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => digits.to_owned(),
            };
            match exponent >= -4 && i64::from(exponent) < precision as i64 {
                true => {
                    let places = precision as i64 - 1 - i64::from(exponent);
                    short(&format!("{x:.*}", usize::try_from(places).unwrap_or(0)))
                }
                false => with_exponent(&short(&digits), exponent),
            }
        }
    };
    Ok(if letter.is_uppercase() { text.to_uppercase() } else { text })
}

pub(super) fn signed(
    state: &State<'_, '_>,
    spec: Spec,
    negative: bool,
    prefix: &str,
    digits: &str,
) -> Result<String, Error> {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(_)) => " ",
        (false, None) => "",
    };
    pad(state, spec, &format!("{sign}{prefix}"), digits)
}

/// `head` and `body` in the width of `spec`; zeros go between them.
pub(super) fn pad(
    state: &State<'_, '_>,
    spec: Spec,
    head: &str,
    body: &str,
) -> Result<String, Error> {
    let between = spec.align == Some('=') || (spec.zeros && spec.align != Some('<'));
    if between {
        let fill = if spec.zeros { '0' } else { spec.fill };
        let width = spec.width.saturating_sub(head.chars().count());
        return Ok(format!("{head}{}", padded(state, body, width, fill, "rjust")?));
    }
    let method = match spec.align {
        Some('<') => "ljust",
        Some('^') => return centred(state, spec, &format!("{head}{body}")),
        _ => "rjust",
    };
    padded(state, &format!("{head}{body}"), spec.width, spec.fill, method)
}

/// Unlike `str.center`, a format puts the odd character to the right.
fn centred(state: &State<'_, '_>, spec: Spec, text: &str) -> Result<String, Error> {
    let len = text.chars().count();
    let left = len + spec.width.saturating_sub(len) / 2;
    let start = padded(state, text, left, spec.fill, "rjust")?;
    padded(state, &start, spec.width, spec.fill, "ljust")
}

/// `text` in `width` characters, as the methods `center`, `ljust`, `rjust` and `zfill` make it.
pub(super) fn padded(
    state: &State<'_, '_>,
    text: &str,
    width: usize,
    fill: char,
    method: &str,
) -> Result<String, Error> {
    let len = text.chars().count();
    let missing = width.saturating_sub(len);
    charge(state, missing.saturating_mul(fill.len_utf8()))?;
    let fills = |n: usize| fill.to_string().repeat(n);
    Ok(match method {
        "ljust" => format!("{text}{}", fills(missing)),
        "rjust" => format!("{}{text}", fills(missing)),
        "zfill" => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            format!("{sign}{}{digits}", fills(missing))
        }
        _ => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fills(left), fills(missing - left))
        }
    })
}
