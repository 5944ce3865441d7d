//! Numbers between bounds, as languages of their digits.

use serde_json::Number;

use super::{json::DIGITS, node::Node};

/// The greatest whole number that is written.
const MOST: i128 = 10i128.pow(DIGITS) - 1;
/// Digits before the point of a number that one bound leaves open, and after it in any case: together as
/// many as `f64` tells apart.
const WHOLE: u32 = 9;
const FRACTION: usize = 6;

/// A bound of a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    value: Decimal,
    is_exclusive: bool,
}

/// Where numbers lie.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Bounds {
    low: Option<Bound>,
    high: Option<Bound>,
}

/// A decimal number, not negative.
#[derive(Debug, Clone, PartialEq)]
struct Decimal {
    is_negative: bool,
    whole: i128,
    /// Its digits after the point, the last of them none of 0.
    fraction: String,
}

impl Decimal {
    fn of(number: &Number) -> Option<Self> {
        let text = match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), ..) => n.to_string(),
            (_, Some(n), _) => n.to_string(),
            (.., Some(n)) => n.to_string(),
            _ => return None,
        };
        let (is_negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.as_str()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0').to_owned();
        // What is further out than any number that is written is only that.
        let whole = whole.parse().unwrap_or(i128::MAX).min(MOST + 1);
        Some(Self {
            is_negative: is_negative && (whole > 0 || !fraction.is_empty()),
            whole,
            fraction,
        })
    }

    fn value(&self) -> f64 {
        let value = format!("{}.{}", self.whole, self.fraction).parse().unwrap_or(f64::INFINITY);
        if self.is_negative { -value } else { value }
    }
}

impl Bound {
    /// A bound; `None` if the number is none of this world.
    pub(super) fn new(number: &Number, is_exclusive: bool) -> Option<Self> {
        Some(Self { value: Decimal::of(number)?, is_exclusive })
    }
}

impl Bounds {
    /// Moves the lower bound up to `bound`, unless it is higher.
    pub(super) fn raise(&mut self, bound: Bound) {
        let is_tighter = |old: &Bound| {
            let (old_at, at) = (old.value.value(), bound.value.value());
            at > old_at || (at == old_at && bound.is_exclusive)
        };
        if self.low.as_ref().is_none_or(is_tighter) {
            self.low = Some(bound);
        }
    }

    /// Moves the upper bound down to `bound`, unless it is lower.
    pub(super) fn lower(&mut self, bound: Bound) {
        let is_tighter = |old: &Bound| {
            let (old_at, at) = (old.value.value(), bound.value.value());
            at < old_at || (at == old_at && bound.is_exclusive)
        };
        if self.high.as_ref().is_none_or(is_tighter) {
            self.high = Some(bound);
        }
    }

    /// Whether any number is accepted.
    pub(super) fn is_open(&self) -> bool {
        self.low.is_none() && self.high.is_none()
    }

    /// Whether no number lies within both.
    pub(super) fn is_apart(&self, other: &Self) -> bool {
        let apart = |high: &Option<Bound>, low: &Option<Bound>| match (high, low) {
            (Some(high), Some(low)) => {
                let (high_at, low_at) = (high.value.value(), low.value.value());
                high_at < low_at || (high_at == low_at && (high.is_exclusive || low.is_exclusive))
            }
            _ => false,
        };
        apart(&self.high, &other.low) || apart(&other.high, &self.low)
    }

    /// The whole numbers within; without any, a language without texts.
    pub(super) fn integers(&self) -> Node {
        let low = self.low.as_ref().map_or(-MOST, |bound| {
            let Decimal { is_negative, whole, fraction } = &bound.value;
            let signed = if *is_negative { -whole } else { *whole };
            // Upwards to the next whole number.
            match fraction.is_empty() {
                true => signed + i128::from(bound.is_exclusive),
                false => signed + i128::from(!is_negative),
            }
        });
        let high = self.high.as_ref().map_or(MOST, |bound| {
            let Decimal { is_negative, whole, fraction } = &bound.value;
            let signed = if *is_negative { -whole } else { *whole };
            match fraction.is_empty() {
                true => signed - i128::from(bound.is_exclusive),
                false => signed - i128::from(*is_negative),
            }
        });
        let (low, high) = (low.max(-MOST), high.min(MOST));
        let mut nodes = Vec::new();
        if low < 0 && low <= high {
            let from = (-high).max(1);
            nodes.push(Node::Seq(vec![Node::text("-"), between(from, -low)]));
        }
        if high >= 0 && low <= high {
            nodes.push(between(low.max(0), high));
        }
        Node::Or(nodes)
    }

    /// The numbers within, written without an exponent; `None` where the bounds have more digits than
    /// can be told apart.
    pub(super) fn numbers(&self) -> Option<Node> {
        let zero = |is_exclusive| Bound {
            value: Decimal { is_negative: false, whole: 0, fraction: String::new() },
            is_exclusive,
        };
        let mirrored = |bound: &Bound| Bound {
            value: Decimal { is_negative: false, ..bound.value.clone() },
            is_exclusive: bound.is_exclusive,
        };
        let is_negative =
            |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.value.is_negative);
        let mut nodes = Vec::new();
        if is_negative(&self.high) != Some(true) {
            let low = self.low.clone().filter(|low| !low.value.is_negative);
            nodes.push(positive(&low.unwrap_or_else(|| zero(false)), self.high.as_ref())?);
        }
        if is_negative(&self.low) != Some(false) {
            let low = self.high.as_ref().filter(|high| high.value.is_negative).map(mirrored);
            let high = self.low.as_ref().map(mirrored);
            // A zero has no sign here.
            let node = positive(&low.unwrap_or_else(|| zero(true)), high.as_ref())?;
            nodes.push(Node::Seq(vec![Node::text("-"), node]));
        }
        Some(Node::Or(nodes))
    }
}

/// The numbers that are not negative between two bounds that are not.
fn positive(low: &Bound, high: Option<&Bound>) -> Option<Node> {
    let digits = |n: i128| n.to_string().len() as u32;
    let bounds = || [Some(low), high].into_iter().flatten();
    let whole = match high {
        Some(high) => digits(high.value.whole),
        None => WHOLE.max(digits(low.value.whole) + 1),
    };
    let fraction = bounds().map(|bound| bound.value.fraction.len()).max()?.max(FRACTION) as u32;
    if whole.min(DIGITS) + fraction > DIGITS {
        return None;
    }
    let most = 10i128.pow(whole) - 1;
    let any = || fraction_of(digit().times(1, Some(fraction)));
    let shape = Node::Seq(vec![between(0, most), any().optional()]);
    let Bound { value, is_exclusive } = low;
    let mut above = vec![Node::Seq(vec![
        Node::text(&value.whole.to_string()),
        fraction_from(&value.fraction, *is_exclusive),
    ])];
    if value.whole < most {
        above.push(Node::Seq(vec![between(value.whole + 1, most), any().optional()]));
    }
    let mut all = vec![shape, Node::Or(above)];
    if let Some(Bound { value, is_exclusive }) = high {
        let mut below = vec![Node::Seq(vec![
            Node::text(&value.whole.to_string()),
            fraction_to(&value.fraction, *is_exclusive),
        ])];
        if value.whole > 0 {
            below.push(Node::Seq(vec![between(0, value.whole - 1), any().optional()]));
        }
        all.push(Node::Or(below));
    }
    Some(Node::all(all))
}

fn digit() -> Node {
    Node::range('0', '9')
}

fn digits() -> Node {
    digit().times(0, None)
}

fn fraction_of(digits: Node) -> Node {
    Node::Seq(vec![Node::text("."), digits])
}

/// The digits of `bound` before place `i`, then one of a range, then any.
fn departs(bound: &str, i: usize, from: char, to: char) -> Node {
    Node::Seq(vec![Node::text(&bound[..i]), Node::range(from, to), digits()])
}

fn next(c: char, step: i32) -> Option<char> {
    char::from_u32(c as u32)
        .and_then(|c| char::from_digit(c.to_digit(10)?.checked_add_signed(step)?, 10))
}

/// Fractions of at least `bound`, or more.
fn fraction_from(bound: &str, is_exclusive: bool) -> Node {
    let more = || Node::Seq(vec![Node::text("0").times(0, None), Node::range('1', '9'), digits()]);
    if bound.is_empty() {
        return match is_exclusive {
            true => fraction_of(more()),
            false => fraction_of(digit().times(1, None)).optional(),
        };
    }
    let mut nodes: Vec<Node> = bound
        .char_indices()
        .filter_map(|(i, c)| Some(departs(bound, i, next(c, 1)?, '9')))
        .collect();
    let rest = if is_exclusive { more() } else { digits() };
    nodes.push(Node::Seq(vec![Node::text(bound), rest]));
    fraction_of(Node::Or(nodes))
}

/// Fractions of at most `bound`, or less.
fn fraction_to(bound: &str, is_exclusive: bool) -> Node {
    let mut nodes: Vec<Node> = bound
        .char_indices()
        .filter_map(|(i, c)| Some(departs(bound, i, '0', next(c, -1)?)))
        .collect();
    nodes.extend((1..bound.len()).map(|i| Node::text(&bound[..i])));
    if !is_exclusive {
        let least = u32::from(bound.is_empty());
        nodes.push(Node::Seq(vec![Node::text(bound), Node::text("0").times(least, None)]));
    }
    let fraction = fraction_of(Node::Or(nodes));
    match bound.is_empty() && is_exclusive {
        true => Node::Or(Vec::new()),
        false => fraction.optional(),
    }
}

/// The whole numbers from `low` to `high`, neither of them negative.
fn between(low: i128, high: i128) -> Node {
    let (first, last) = (low.to_string().len(), high.to_string().len());
    let of_length = |length: usize| {
        let least = if length == 1 { 0 } else { 10i128.pow(length as u32 - 1) };
        let (low, high) = (low.max(least), high.min(10i128.pow(length as u32) - 1));
        same_length(&low.to_string(), &high.to_string())
    };
    Node::Or((first..=last).filter(|_| low <= high).map(of_length).collect())
}

/// The numbers of so many digits from `low` to `high`.
fn same_length(low: &str, high: &str) -> Node {
    let (Some(a), Some(b)) = (low.chars().next(), high.chars().next()) else {
        return Node::empty();
    };
    let (low, high) = (&low[1..], &high[1..]);
    let after = |c: char, rest: Node| Node::Seq(vec![Node::range(c, c), rest]);
    if a == b {
        return after(a, same_length(low, high));
    }
    let length = low.len();
    if (a, b) == ('0', '9') && low.bytes().all(|c| c == b'0') && high.bytes().all(|c| c == b'9') {
        return digit().times(length as u32 + 1, Some(length as u32 + 1));
    }
    let mut nodes = vec![
        after(a, same_length(low, &"9".repeat(length))),
        after(b, same_length(&"0".repeat(length), high)),
    ];
    if let (Some(from), Some(to)) = (next(a, 1), next(b, -1))
        && from <= to
    {
        let rest = digit().times(length as u32, Some(length as u32));
        nodes.push(Node::Seq(vec![Node::range(from, to), rest]));
    }
    Node::Or(nodes)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{dfa::Dfa, nfa::Nfa},
        *,
    };
    use proptest::prelude::*;

    fn dfa(node: &Node) -> Dfa {
        Dfa::of(&Nfa::of(node).unwrap()).unwrap()
    }

    fn bounds(low: Option<(f64, bool)>, high: Option<(f64, bool)>) -> Bounds {
        let bound = |(at, is_exclusive): (f64, bool)| {
            Bound::new(&Number::from_f64(at).unwrap(), is_exclusive).unwrap()
        };
        Bounds { low: low.map(bound), high: high.map(bound) }
    }

    fn holds(x: f64, low: Option<(f64, bool)>, high: Option<(f64, bool)>) -> bool {
        low.is_none_or(|(at, exclusive)| if exclusive { x > at } else { x >= at })
            && high.is_none_or(|(at, exclusive)| if exclusive { x < at } else { x <= at })
    }

    fn bound() -> impl Strategy<Value = Option<(f64, bool)>> {
        let at = prop_oneof![
            (-20i32..20).prop_map(f64::from),
            (-3000i32..3000).prop_map(|n| f64::from(n) / 100.0),
            (-1200i32..1200).prop_map(f64::from),
        ];
        proptest::option::of((at, any::<bool>()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn exactly_the_numbers_within_are_accepted(low in bound(), high in bound()) {
            let of = bounds(low, high);
            let (integers, numbers) = (dfa(&of.integers()), dfa(&of.numbers().unwrap()));
            for n in -1300i32..1300 {
                let is_within = holds(f64::from(n), low, high);
                prop_assert_eq!(integers.is_match(n.to_string().as_bytes()), is_within, "{}", n);
            }
            for n in -3200i32..3200 {
                let x = f64::from(n) / 100.0;
                for text in [format!("{x}"), format!("{x:.3}")] {
                    let is_zero = n == 0 && text.starts_with('-');
                    let short = text.trim_start_matches('-').split('.').next().unwrap().len();
                    let fits = high.is_none_or(|(at, _)| short <= (at.abs().floor().to_string().len()));
                    if !is_zero && fits {
                        let is_within = holds(text.parse().unwrap(), low, high);
                        prop_assert_eq!(numbers.is_match(text.as_bytes()), is_within, "{}", text);
                    }
                }
            }
            for text in ["-0", "01", "1.", ".5", "+1", "1e2"] {
                prop_assert!(!numbers.is_match(text.as_bytes()));
            }
        }
    }

    #[test]
    fn bounds_beyond_all_that_is_written_are_none() {
        let all = dfa(&bounds(Some((-1e30, false)), Some((1e30, true))).integers());
        assert!(all.is_match(b"-999999999999999") && !all.is_match(b"1000000000000000"));
        assert_eq!(dfa(&bounds(Some((1e30, false)), None).integers()).start(), 0);
        assert!(bounds(None, Some((0.123_456_789_012_345_6, false))).numbers().is_none());
        assert!(bounds(None, Some((1.0, true))).is_apart(&bounds(Some((1.0, false)), None)));
        assert!(!bounds(None, Some((1.0, false))).is_apart(&bounds(Some((1.0, false)), None)));
    }
}
