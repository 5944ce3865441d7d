//! The filter `urlize`: addresses in a text become links of HTML.

use std::collections::BTreeSet;

use minijinja::{AutoEscape, Error, State, Value};

use super::{
    arguments::{bind, optional_whole, string, truth},
    characters::{is_decimal, is_word},
    charge,
    collections::clamp,
    fail,
    html::{escaped, html},
    values::items,
};
use crate::text::is_space;

/// The top-level domains of addresses that are recognized without a scheme.
const BASIC_DOMAINS: [&str; 8] = ["com", "net", "int", "edu", "gov", "org", "info", "mil"];
/// What may stand before an address, in a text that has been escaped.
const OPENING: [&str; 3] = ["(", "<", "&lt;"];
/// What may stand after one.
const CLOSING: [&str; 5] = [")", ">", ".", ",", "&gt;"];
/// What belongs to an address if it closes what opens in it.
const BRACKETS: [[&str; 2]; 3] = [["(", ")"], ["<", ">"], ["&lt;", "&gt;"]];

/// The filter.
pub(super) fn urlize(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "trim_url_limit", "nofollow", "target", "rel", "extra_schemes"];
    let [value, limit, nofollow, target, rel, schemes] = bind(args, 1, names)?;
    let rel = rel.filter(Value::is_true).unwrap_or(Value::from(""));
    let mut words: BTreeSet<&str> = string(&rel)?.split(is_space).collect();
    words.remove("");
    words.extend(["noopener"].into_iter().chain(truth(nofollow.as_ref()).then_some("nofollow")));
    let words = words.into_iter().collect::<Vec<_>>().join(" ");
    let mut attributes = format!(" rel=\"{}\"", escaped(&words));
    if let Some(target) = target.filter(Value::is_true) {
        attributes += &format!(" target=\"{}\"", html(state, &target)?);
    }
    let schemes = schemes.filter(|s| !s.is_none()).map(|s| items(state, &s)).transpose()?;
    let schemes = schemes.unwrap_or_default();
    let schemes: Vec<&str> = schemes.iter().map(scheme).collect::<Result<_, _>>()?;
    let links = Links { limit: optional_whole(limit.as_ref())?, attributes, schemes };

    let text = html(state, &value.unwrap_or_default())?;
    let mut out = String::new();
    for piece in text.split_inclusive(is_space) {
        let word = piece.trim_end_matches(is_space);
        let [head, address, tail] = parts(word);
        let link = links.link(address);
        let linked = link.as_deref().unwrap_or(address);
        charge(state, linked.len() + links.schemes.len() * 8)?;
        out.extend([head, linked, tail, &piece[word.len()..]]);
    }
    Ok(match state.auto_escape() {
        AutoEscape::None => Value::from(out),
        _ => Value::from_safe_string(out),
    })
}

/// What an address may begin with to be a link too.
fn scheme(value: &Value) -> Result<&str, Error> {
    let scheme = string(value)?;
    let name = scheme.trim_end_matches('/');
    let is_valid = scheme.len() - name.len() <= 2
        && name.strip_suffix(':').is_some_and(|name| {
            name.chars().count() > 1 && name.chars().all(|c| is_word(c) || ".+-".contains(c))
        });
    if is_valid { Ok(scheme) } else { fail(format!("`{scheme}` is no scheme of addresses")) }
}

/// What stands in a word before an address, the address, and what stands after it.
fn parts(word: &str) -> [&str; 3] {
    let mut address = word;
    while let Some(rest) = OPENING.iter().find_map(|mark| address.strip_prefix(mark)) {
        address = rest;
    }
    let (head, rest) = word.split_at(word.len() - address.len());
    while let Some(rest) = CLOSING.iter().find_map(|mark| address.strip_suffix(mark)) {
        address = rest;
    }
    let mut end = address.len();
    for [open, close] in BRACKETS {
        let opened = rest[..end].matches(open).count();
        if opened > rest[..end].matches(close).count() {
            let closed = rest[end..].match_indices(close).take(opened).last();
            end += closed.map_or(0, |(at, _)| at + close.len());
        }
    }
    [head, &rest[..end], &rest[end..]]
}

/// How links are written.
struct Links<'a> {
    /// Characters of an address that are shown.
    limit: Option<i64>,
    attributes: String,
    schemes: Vec<&'a str>,
}

impl Links<'_> {
    /// The link to `address`, if it is one.
    fn link(&self, address: &str) -> Option<String> {
        let attributes = &self.attributes;
        if is_page(address) {
            let has_scheme = ["https://", "http://"].iter().any(|s| address.starts_with(s));
            let scheme = if has_scheme { "" } else { "https://" };
            let shown = self.shown(address);
            return Some(format!("<a href=\"{scheme}{address}\"{attributes}>{shown}</a>"));
        }
        if let Some(mailbox) = address.strip_prefix("mailto:").filter(|rest| is_mailbox(rest)) {
            return Some(format!("<a href=\"{address}\">{mailbox}</a>"));
        }
        let may_be_mailbox = !address.starts_with("www.") && !address.starts_with('@');
        if may_be_mailbox && !address.contains(':') && is_mailbox(address) {
            return Some(format!("<a href=\"mailto:{address}\">{address}</a>"));
        }
        let begins = |scheme: &&str| address.len() > scheme.len() && address.starts_with(scheme);
        let known = self.schemes.iter().any(begins);
        known.then(|| format!("<a href=\"{address}\"{attributes}>{address}</a>"))
    }

    fn shown(&self, address: &str) -> String {
        let len = address.chars().count();
        match self.limit.filter(|limit| len as i64 > *limit) {
            None => address.to_owned(),
            Some(limit) => {
                let kept = clamp(None, Some(limit), len).end;
                address.chars().take(kept).chain("...".chars()).collect()
            }
        }
    }
}

/// Whether it is the address of a page: with a scheme, with `www.`, or in a well-known domain.
fn is_page(address: &str) -> bool {
    let after = |start: &str| {
        let found = address.get(..start.len())?;
        found.eq_ignore_ascii_case(start).then(|| &address[start.len()..])
    };
    let begins = |rest: &str, is_host: fn(&str) -> bool| {
        let (host, place) = rest.split_at(rest.find([':', '/', '?', '#']).unwrap_or(rest.len()));
        is_host(host) && is_place(place)
    };
    let is_ipv6 = |rest: &str| {
        let inside = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        inside.is_some_and(|(host, place)| is_ipv6(host) && is_place(place))
    };
    let with_scheme = after("https://").or_else(|| after("http://"));
    begins(address, is_basic)
        || with_scheme.or_else(|| after("www.")).is_some_and(|rest| begins(rest, is_named))
        || with_scheme.is_some_and(|rest| begins(rest, is_ipv4) || is_ipv6(rest))
}

/// Whether it is a host of a well-known domain.
fn is_basic(host: &str) -> bool {
    host.rsplit_once('.').is_some_and(|(labels, last)| {
        are_labels(labels, 2, 63) && BASIC_DOMAINS.iter().any(|d| last.eq_ignore_ascii_case(d))
    })
}

/// Whether it is a host of any domain.
fn is_named(host: &str) -> bool {
    match host.rsplit_once('.') {
        Some((labels, last)) => are_labels(labels, 1, usize::MAX) && is_top_level(last),
        None => is_top_level(host),
    }
}

/// Names with dots between them, each of `least` to `most` characters.
fn are_labels(labels: &str, least: usize, most: usize) -> bool {
    labels.split('.').all(|label| {
        (least..=most).contains(&label.chars().count())
            && label.chars().all(|c| is_word(c) || matches!(c, '%' | '-'))
    })
}

fn is_top_level(name: &str) -> bool {
    let is_plain = (2..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic());
    let prefix = name.get(..4).filter(|start| start.eq_ignore_ascii_case("xn--"));
    is_plain
        || prefix.is_some_and(|prefix| {
            let encoded = &name[prefix.len()..];
            (2..=59).contains(&encoded.chars().count())
                && encoded.chars().all(|c| is_word(c) || c == '%')
        })
}

fn is_ipv4(host: &str) -> bool {
    host.split('.').count() == 4 && host.split('.').all(|part| is_number(part, 3))
}

/// Up to eight groups of four digits, as loosely as jinja2 reads them.
fn is_ipv6(host: &str) -> bool {
    let mut groups = host.split(':').map(|group| group.chars().count());
    let are_digits = host.chars().all(|c| c == ':' || is_decimal(c) || c.is_ascii_hexdigit());
    let begins = groups.next().is_some_and(|n| n <= 4) && groups.next().is_some_and(|n| n <= 4);
    // A colon ends a group of fewer digits, and a fifth digit begins another.
    let rest: Vec<usize> = groups.map(|digits| digits.div_ceil(4)).collect();
    let Some((last, ended)) = rest.split_last() else { return false };
    let used = ended.iter().map(|groups| (*groups).max(1)).sum::<usize>() + last;
    are_digits && begins && used <= 6
}

/// Whether it is what may follow a host: a port, then a path.
fn is_place(place: &str) -> bool {
    match place.strip_prefix(':') {
        Some(rest) => is_number(&rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())], 5),
        None => place.is_empty() || place.starts_with(['/', '?', '#']),
    }
}

/// Whether it is a number of at most `most` digits.
fn is_number(digits: &str, most: usize) -> bool {
    (1..=most).contains(&digits.chars().count()) && digits.chars().all(is_decimal)
}

/// Whether it is an address of mail.
fn is_mailbox(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(name, host)| {
        host.rsplit_once('.').is_some_and(|(labels, last)| {
            !name.is_empty()
                && labels.starts_with(is_word)
                && labels.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
                && !last.is_empty()
                && last.chars().all(is_word)
        })
    })
}
