//! What Python's strings know of characters: their case and their classes.

use std::sync::LazyLock;

use regex::Regex;

use crate::text::is_space;

/// A class of characters beyond ASCII; none if the pattern is wrong, which a test would see.
type Class = LazyLock<Option<Regex>>;

fn is_in(class: &Class, c: char) -> bool {
    class.as_ref().is_some_and(|class| class.is_match(c.encode_utf8(&mut [0; 4])))
}

/// As `str.isprintable`.
pub(super) fn is_printable(c: char) -> bool {
    static OTHER: Class = LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}]").ok());
    if c.is_ascii() { matches!(c, ' '..='~') } else { !is_in(&OTHER, c) }
}

/// A digit of any script.
pub(super) fn is_decimal(c: char) -> bool {
    static DECIMAL: Class = LazyLock::new(|| Regex::new(r"\p{Nd}").ok());
    if c.is_ascii() { c.is_ascii_digit() } else { is_in(&DECIMAL, c) }
}

/// A letter: no mark, unlike what Unicode calls alphabetic.
fn is_letter(c: char) -> bool {
    static LETTER: Class = LazyLock::new(|| Regex::new(r"\p{L}").ok());
    if c.is_ascii() { c.is_ascii_alphabetic() } else { is_in(&LETTER, c) }
}

/// What `\w` means in Python.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || is_letter(c) || c.is_numeric()
}

/// A digit that may be raised, lowered or in a circle.
fn is_digit(c: char) -> bool {
    static DIGIT: Class = LazyLock::new(|| {
        let class = "[\u{b2}\u{b3}\u{b9}\u{1369}-\u{1371}\u{19da}\u{2070}\u{2074}-\u{2079}\
                     \u{2080}-\u{2089}\u{2460}-\u{2468}\u{2474}-\u{247c}\u{2488}-\u{2490}\
                     \u{24ea}\u{24f5}-\u{24fd}\u{24ff}\u{2776}-\u{277e}\u{2780}-\u{2788}\
                     \u{278a}-\u{2792}\u{10a40}-\u{10a43}\u{10e60}-\u{10e68}\
                     \u{11052}-\u{1105a}\u{1f100}-\u{1f10a}]";
        Regex::new(class).ok()
    });
    is_decimal(c) || (!c.is_ascii() && is_in(&DIGIT, c))
}

/// A number of any kind, the ideographs that are numbers among them.
fn is_numeric(c: char) -> bool {
    static IDEOGRAPH: Class = LazyLock::new(|| {
        let class = "[㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千-卅卌叁-叄四壱壹幺廾廿弌-弎弐拾捌柒漆\
                     玖百肆萬貮貳贰阡陆陌陸零\u{f96b}\u{f973}\u{f978}\u{f9b2}\u{f9d1}\u{f9d3}\u{f9fd}\
                     \u{20001}\u{20064}\u{200e2}\u{20121}\u{2092a}\u{20983}\u{2098c}\u{2099c}\
                     \u{20aea}\u{20afd}\u{20b19}\u{22390}\u{22998}\u{23b1b}\u{2626d}\u{2f890}]";
        Regex::new(class).ok()
    });
    c.is_numeric() || (!c.is_ascii() && is_in(&IDEOGRAPH, c))
}

fn is_identifier(text: &str) -> bool {
    static NAME: Class = LazyLock::new(|| Regex::new(r"\A[_\p{XIDS}]\p{XIDC}*\z").ok());
    NAME.as_ref().is_some_and(|name| name.is_match(text))
}

/// A capital letter at the start of a word whose other letters are small, such as `ǅ`.
fn is_title(c: char) -> bool {
    static TITLE: Class = LazyLock::new(|| Regex::new(r"\p{Lt}").ok());
    !c.is_ascii() && is_in(&TITLE, c)
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

/// Whether capitals stand where words begin, and only there.
fn is_titled(text: &str) -> bool {
    let (mut inside, mut any) = (false, false);
    for c in text.chars() {
        if is_cased(c) && c.is_lowercase() != inside {
            return false;
        }
        inside = is_cased(c);
        any |= inside;
    }
    any
}

/// The methods that ask what a string consists of.
pub(super) fn class(text: &str, method: &str) -> Option<bool> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    Some(match method {
        "islower" => is_lower(text),
        "isupper" => is_upper(text),
        "istitle" => is_titled(text),
        "isspace" => all(is_space),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isnumeric" => all(is_numeric),
        "isalnum" => all(|c| is_letter(c) || is_numeric(c)),
        "isalpha" => all(is_letter),
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "isidentifier" => is_identifier(text),
        _ => return None,
    })
}

/// The methods that change letters.
pub(super) fn case(text: &str, method: &str) -> Option<String> {
    // Each character in lower case is cut off the whole, so that a final sigma is one.
    let whole = text.to_lowercase();
    let mut rest = whole.chars();
    let mut lower = |c: char| -> String { rest.by_ref().take(c.to_lowercase().count()).collect() };
    Some(match method {
        "upper" => text.to_uppercase(),
        "lower" => whole,
        "casefold" => text.chars().map(fold).collect(),
        "capitalize" | "title" => {
            let mut inside = false;
            let mut out = String::new();
            for c in text.chars() {
                let small = lower(c);
                out.push_str(&if inside { small } else { title(c) });
                inside = method == "capitalize" || is_cased(c);
            }
            out
        }
        "swapcase" => {
            let mut out = String::new();
            for c in text.chars() {
                let small = lower(c);
                match c {
                    c if c.is_uppercase() => out.push_str(&small),
                    c if c.is_lowercase() => out.extend(c.to_uppercase()),
                    c => out.push(c),
                }
            }
            out
        }
        _ => return None,
    })
}

/// The character without its case, as Unicode folds it.
fn fold(c: char) -> String {
    match c {
        'ı' | '\u{13a0}'..='\u{13f5}' => c.into(),
        // Cherokee folds to upper case.
        '\u{13f8}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => c.to_uppercase().collect(),
        c => {
            let upper = c.to_lowercase().flat_map(char::to_uppercase);
            upper.flat_map(char::to_lowercase).collect()
        }
    }
}

/// The character at the start of a word.
fn title(c: char) -> String {
    match c {
        'ß' => "Ss".into(),
        'Ǆ'..='ǆ' => "ǅ".into(),
        'Ǉ'..='ǉ' => "ǈ".into(),
        'Ǌ'..='ǌ' => "ǋ".into(),
        'ﬁ' => "Fi".into(),
        'ﬂ' => "Fl".into(),
        c => c.to_uppercase().collect(),
    }
}
